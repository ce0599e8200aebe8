"""Rules of what is kept: old models and task folders go, what resuming and other rows need stays."""

from __future__ import annotations

import threading

import pytest
from driven import drive, killed, write_config
from federation import DRIFTING, Federation

from fedpkg.config import RunConfig
from fedpkg.errors import NotFound
from fedpkg.stores.base import SessionRow
from fedpkg.stores.check import Finding
from fedpkg.stores.models import ModelStore


def config_of(federation: Federation, *, rounds: int = 6, **keep: object) -> RunConfig:
    return federation.config(package=str(DRIFTING), clients=2, rounds=rounds, keep=keep)


def kept_rounds(federation: Federation, session: SessionRow) -> list[int]:
    """Rounds whose model's file is there; the rows must say the same."""
    files = ModelStore(federation.home.models)
    models = federation.store.list_models(session.session_id)
    there = [model.round_number for model in models if files.path(model.digest, model.suffix).exists()]
    assert there == [model.round_number for model in models if model.pruned is None]
    return there


def kept_rounds_by_row(federation: Federation, session: SessionRow) -> list[int]:
    return [model.round_number for model in federation.store.list_kept_models(session_id=session.session_id)]


def task_rounds(federation: Federation, session: SessionRow) -> list[int]:
    folder = federation.home.session_folder(session.session_id)
    return sorted(int(path.name.removeprefix("round-")) for path in folder.glob("round-*"))


def assert_clean(federation: Federation) -> None:
    assert federation.findings() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "models", "folders"),
    [
        ("all", [0, 1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]),
        ("last 1", [0, 5, 6], [6]),  # the strategy's last two states are kept, and name 5 and 6
        ("last 3", [0, 4, 5, 6], [4, 5, 6]),
        ("every 2", [0, 2, 4, 5, 6], [2, 4, 6]),
        ("every 4", [0, 4, 5, 6], [4]),
        ("last 99", [0, 1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]),
    ],
)
@pytest.mark.every_push("last 1|every 2")
def test_rule_says_which_rounds_stay(federation: Federation, rule: str, models: list[int], folders: list[int]) -> None:
    session = federation.run(config_of(federation, models=rule, task_folders=rule))
    assert kept_rounds(federation, session) == models
    assert task_rounds(federation, session) == folders
    assert_clean(federation)
    assert len(federation.store.model_trail(f"{session.session_id}.6")) == 7, "rows stay"
    assert federation.resume(session.session_id, rounds=7).status == "finished"
    assert_clean(federation)


@pytest.mark.slow
def test_pruned_session_resumes_to_the_same_bits(federation: Federation) -> None:
    expected = federation.digests(federation.run(config_of(federation)).session_id)
    config = write_config(federation, config_of(federation, models="last 1", task_folders="last 1"))
    for step in ("before:set_pruned:2", "after:set_pruned:2", "before:commit_round:4", "after:finish_round:6"):
        killed(federation, "--run", config, "--kill-at-step", step)
        session = federation.store.list_sessions()[-1]
        assert not [finding for finding in federation.findings() if finding.damaged], step
        assert federation.resume(session.session_id).status == "finished"
        assert federation.digests(session.session_id) == expected, step
        assert task_rounds(federation, session) == [6]


@pytest.mark.slow
def test_pruning_that_is_killed_is_finished_by_the_next(federation: Federation) -> None:
    session = federation.run(config_of(federation))
    before = federation.digests(session.session_id)
    (federation.home.packages / ("ab" * 32) / "files").mkdir(parents=True)  # left by a run that never began
    points = ["before:set_pruned:1", "after:set_pruned:1", "before:remove:2", "after:unlink:3", "after:remove:2"]
    for point in points:
        killed(federation, "--prune", "--kill-at-step", point)
        assert not [finding for finding in federation.findings() if finding.damaged], point
    assert kept_rounds_by_row(federation, session) == [0, 5, 6]
    assert federation.findings() != [], "something is left over"
    with drive(federation, "--prune") as pruning:
        assert pruning.wait(60) == 0
    assert_clean(federation)
    assert kept_rounds(federation, session) == [0, 5, 6]
    assert task_rounds(federation, session) == [6]
    assert federation.digests(session.session_id) == before
    assert federation.resume(session.session_id, rounds=7).status == "finished"


def test_file_that_another_session_needs_stays(federation: Federation) -> None:
    keeper = federation.run(config_of(federation))
    pruned = federation.run(config_of(federation, models="last 1"))
    assert federation.digests(keeper.session_id) == federation.digests(pruned.session_id)
    rows = {row.round_number: row.pruned for row in federation.store.list_models(pruned.session_id)}
    assert [number for number, rule in rows.items() if rule == "last 1"] == [1, 2, 3, 4]
    assert kept_rounds(federation, keeper) == [0, 1, 2, 3, 4, 5, 6]
    assert_clean(federation)


def test_kept_updates_outlive_their_task_folders(federation: Federation) -> None:
    session = federation.run(config_of(federation, updates=True, task_folders="last 1"))
    updates = [update for n in range(1, 7) for update in federation.store.list_updates(session.session_id, n)]
    assert len(updates) == 12
    assert all((federation.home.root / update.path).is_file() for update in updates)
    first = federation.home.session_folder(session.session_id) / "round-1" / "client-0"
    assert [path.name for path in first.iterdir()] == ["train.reply"]
    assert_clean(federation)
    (federation.home.root / updates[0].path).unlink()
    assert [finding.place for finding in federation.findings() if finding.damaged] == [
        str((federation.home.root / updates[0].path).parent)
    ]


def test_pruned_model_says_which_rule_it_was(federation: Federation) -> None:
    session = federation.run(config_of(federation, models="last 2"))
    model = federation.store.get_model(f"{session.session_id}.1")
    with pytest.raises(NotFound, match=r"\.1 was pruned by the rule keep last 2"):
        ModelStore(federation.home.models).verify_model(model)


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [6, pytest.param(20, marks=pytest.mark.soak)])
def test_check_finds_nothing_while_a_session_runs_and_prunes(federation: Federation, rounds: int) -> None:
    found: list[Finding] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            found.extend(federation.findings())

    federation.run(config_of(federation, rounds=1))  # from here on there is a database
    looking = threading.Thread(target=look)
    looking.start()
    try:
        federation.run(config_of(federation, models="last 1", task_folders="last 1", rounds=rounds))
    finally:
        ended.set()
        looking.join()
    assert [finding for finding in found if finding.damaged] == []
