"""Rounds: who is asked, whose replies count, what becomes of the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from federation import DRIFTING, Federation

from fedpkg.controller.events import RoundFinished, SessionEnded, SessionStarted
from fedpkg.errors import ConfigError, EntryPointFailed, HomeLocked, SessionFailed
from fedpkg.stores.home import Home
from fedpkg.strategies.base import Replies, Request, State, Step, StepContext
from fedpkg.weights.fold import MeanFold
from fedpkg.weights.weights import Weights


def test_every_round_adds_what_the_clients_added(federation: Federation) -> None:
    session = federation.run(rounds=3)
    assert session.status == "finished"
    assert [federation.steps_taken(session, n) for n in (1, 2, 3)] == pytest.approx([1.0, 2.0, 3.0], abs=1e-6)
    assert [
        type(event) for event in federation.events if isinstance(event, (SessionStarted, RoundFinished, SessionEnded))
    ] == [
        SessionStarted,
        RoundFinished,
        RoundFinished,
        RoundFinished,
        SessionEnded,
    ]


def test_model_trail_leads_back_to_the_seed(federation: Federation) -> None:
    session = federation.run(rounds=2)
    trail = federation.store.model_trail(f"{session.session_id}.2")
    assert [model.round_number for model in trail] == [2, 1, 0]
    assert [one["client_id"] for one in trail[0].contributors] == ["client-0", "client-1", "client-2"]


def test_mean_is_weighted_by_num_examples(federation: Federation) -> None:
    session = federation.run(package=str(DRIFTING), clients=3, keep={"updates": True})
    updates = federation.store.list_updates(session.session_id, 1)
    assert [update.num_examples for update in updates] == [3, 8, 13]
    tensors = [np.load(federation.home.root / update.path)["w"].astype(np.float64) for update in updates]
    expected = (3 * tensors[0] + 8 * tensors[1] + 13 * tensors[2]) / 24
    model = federation.model(f"{session.session_id}.1")
    np.testing.assert_allclose(model["w"].numpy(), expected, atol=1e-6)
    assert not np.allclose(model["w"].numpy(), sum(tensors) / 3, atol=1e-3)
    assert federation.store.get_round(session.session_id, 1).num_examples == 24


def test_round_without_the_clients_that_failed(federation: Federation) -> None:
    session = federation.run(clients=2, plan={"client-1": "exit3"})
    row = federation.store.get_round(session.session_id, 1)
    assert (row.num_ok, row.num_failed, row.counted) == (1, 1, ["client-0"])


@pytest.mark.parametrize("changes", [{"round": {"required": 4}}, {"sampler": {"min_clients": 4}}])
def test_count_that_no_round_can_reach_is_refused_before_anything_runs(
    federation: Federation, changes: dict[str, object]
) -> None:
    with pytest.raises(ConfigError, match=r"required is 4|4"):
        federation.run(**changes)
    assert federation.store.list_sessions() == []


KRUM = {"name": "krum", "attackers": 1}


@pytest.mark.parametrize(
    ("strategy", "needs"),
    [
        (KRUM, 5),
        ({"aggregator": KRUM, "server_optimiser": "adam"}, 5),
        ({"name": "bucketing", "inner": KRUM}, 9),
        ({"aggregator": {"name": "bulyan", "attackers": 1}}, 7),
    ],
)
def test_strategy_that_can_never_have_enough_replies_is_refused_before_anything_runs(
    federation: Federation, strategy: dict[str, object], needs: int
) -> None:
    with pytest.raises(
        ConfigError, match=rf"it needs {needs} updates a round, but each round collects only 4 \(from 8"
    ) as caught:
        federation.run(clients=8, sampler={"fraction_train": 0.5}, strategy=strategy)
    assert "lower the number of attackers" in (caught.value.hint or "")
    assert federation.store.list_sessions() == []


def test_too_few_replies_for_a_strategy_stop_the_session_and_resuming_asks_again(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MISBEHAVE", "raise")
    with pytest.raises(SessionFailed, match=r"round 1: 0 usable updates, 5 are required \(by the strategy\)") as caught:
        federation.run(clients=5, strategy=KRUM)
    assert "fedpkg session resume" in (caught.value.hint or "")
    session = federation.store.get_session(caught.value.fields["session_id"])
    monkeypatch.setenv("MISBEHAVE", "ok")
    assert federation.resume(session.session_id).status == "finished"


def test_changed_file_of_a_strategy_is_warned_of_when_a_session_resumes(
    federation: Federation, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "meine Methode.py"
    source = """
from fedpkg.strategies import register_strategy
from fedpkg.strategies.pipeline import Pipeline
register_strategy("its-own")(lambda: Pipeline())
with open(__file__ + ".runs", "a") as runs:
    runs.write("x")
"""
    file.write_text(source)
    session = federation.run(strategy={"file": str(file)})
    assert (tmp_path / "meine Methode.py.runs").read_text() == "x", "it is run once"
    federation.resume(session.session_id, rounds=2)
    assert "strategy.changed" not in caplog.text
    file.write_text(source + "# better\n")
    federation.resume(session.session_id, rounds=3)
    assert "strategy.changed" in caplog.text and "meine Methode.py has changed" in caplog.text
    assert (tmp_path / "meine Methode.py.runs").read_text() == "xx", "and again as it is now"


def test_session_cannot_end_before_the_rounds_it_has_begun(federation: Federation) -> None:
    session = federation.run(rounds=2)
    with pytest.raises(ConfigError, match="has started 2 rounds"):
        federation.resume(session.session_id, rounds=1)
    assert federation.store.get_session(session.session_id).num_rounds == 2


def test_more_replies_than_open_files_can_wait_for_their_turn(federation: Federation) -> None:
    session = federation.run(clients=60, plan={"client-00": "slow"}, executor={"workers": 2})
    assert federation.store.get_round(session.session_id, 1).num_ok == 60


def test_moved_home_resumes(federation: Federation, tmp_path: Path) -> None:
    data = tmp_path / "data.npz"
    x, y = np.zeros((40, 2), np.float32), np.arange(40) % 2
    np.savez(data, x_train=x, y_train=y, x_test=x, y_test=y)
    session = federation.run(clients={"count": 2, "data": {"dataset": str(data)}}, rounds=1)
    moved = federation.home.root.rename(tmp_path / "moved")
    federation.home = Home.open(moved)
    assert federation.resume(session.session_id, rounds=2).status == "finished"


def test_fraction_and_minimum_decide_how_many_are_asked(federation: Federation) -> None:
    session = federation.run(clients=5, rounds=3, sampler={"fraction_train": 0.2, "min_clients": 2})
    cohorts = [row.cohort for row in federation.store.list_rounds(session.session_id)]
    assert [len(cohort) for cohort in cohorts] == [2, 2, 2]
    assert len({tuple(cohort) for cohort in cohorts}) > 1
    again = federation.run(clients=5, rounds=3, sampler={"fraction_train": 0.2, "min_clients": 2})
    assert cohorts == [row.cohort for row in federation.store.list_rounds(again.session_id)]


class FirstTwo:
    """Asks everybody, and goes on with the first two."""

    def init(self, seed_model: Weights) -> State:
        return {"model": seed_model}

    def step(self, state: State, ctx: StepContext) -> Step:
        model = state["model"]
        replies: Replies = yield Request(payload=model, clients=tuple(one.client_id for one in ctx.clients), wait=2)
        fold = MeanFold(model)
        for reply in replies:
            fold.add(reply.position, reply.weights, reply.num_examples)
        return {"model": fold.result()}


def test_strategy_may_go_on_with_the_first_who_answer(federation: Federation) -> None:
    session = federation.run(clients=4, plan={"client-1": "sleep"}, strategy={"name": "test_rounds:FirstTwo"})
    (request,) = federation.store.list_requests(session.session_id, round_number=1)
    assert (request.target, len(request.cohort), request.num_ok) == (2, 4, 2)
    assert request.counted is not None and "client-1" not in request.counted
    assert federation.task(session, "client-1").status == "cancelled"
    assert federation.steps_taken(session, 1) == pytest.approx(1.0, abs=1e-6)


def test_first_answers_count_under_over_selection(federation: Federation) -> None:
    session = federation.run(
        clients=4, plan={"client-1": "sleep"}, sampler={"fraction_train": 0.5, "over_selection": 1.0}
    )
    row = federation.store.get_round(session.session_id, 1)
    assert row.target == 2 and len(row.cohort) == 4
    assert row.counted is not None and len(row.counted) == 2 and "client-1" not in row.counted
    assert federation.task(session, "client-1").status == "cancelled"
    assert row.num_failed == 0
    clients = federation.home.session_folder(session.session_id) / "clients"
    assert not any(any(client.iterdir()) for client in clients.iterdir()), "nobody left a state"


def test_round_ends_at_its_time_limit_with_the_answers_it_has(federation: Federation) -> None:
    session = federation.run(plan={"client-1": "sleep"}, round={"timeout_s": 3})
    task = federation.task(session, "client-1")
    assert (task.status, task.failure) == ("failed", "round_timeout")
    assert federation.store.get_round(session.session_id, 1).counted == ["client-0", "client-2"]


def test_task_that_takes_too_long_is_a_failure_of_that_client(federation: Federation) -> None:
    session = federation.run(plan={"client-0": "sleep"}, executor={"workers": 2, "timeout_s": 1})
    task = federation.task(session, "client-0")
    assert (task.status, task.failure) == ("failed", "timeout")
    assert "time limit of 1 s" in (task.message or "")


def test_too_few_answers_stop_the_session_and_resuming_retries_them(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MISBEHAVE", "raise")
    with pytest.raises(SessionFailed, match=r"round 1: 0 usable updates, 2 are required \(round.required\)") as caught:
        federation.run(round={"required": 2})
    session = federation.store.get_session(caught.value.fields["session_id"])
    assert session.status == "failed"
    row = federation.store.get_round(session.session_id, 1)
    assert (row.status, row.num_failed) == ("failed", 3)
    assert "expected 784 features, got 785" in (federation.task(session, "client-0").log_tail or "")
    monkeypatch.setenv("MISBEHAVE", "ok")
    assert federation.resume(session.session_id).status == "finished"
    assert federation.steps_taken(session, 1) == pytest.approx(1.0, abs=1e-6)
    assert federation.task(session, "client-0").attempt == 2


def test_clients_keep_state_between_rounds_and_failures_leave_no_trace(federation: Federation) -> None:
    plan = {f"client-{k}": "write_state" for k in range(3)} | {"client-1@2": "write_state_exit3"}
    session = federation.run(rounds=3, plan=plan)
    assert federation.store.get_round(session.session_id, 2).num_failed == 1
    updates = federation.store.list_updates(session.session_id, 3)
    counts = [update.metadata["counts"] for update in updates]
    assert counts[0] == counts[2] and all(count == 3 for count in counts[0].values())
    assert all(count == 2 for count in counts[1].values()), "the call that failed left nothing"


def test_old_state_versions_are_removed(federation: Federation) -> None:
    session = federation.run(rounds=3, plan={"client-0": "write_state"})
    clients = federation.home.session_folder(session.session_id) / "clients"
    left = {client.name: [version.name for version in client.iterdir()] for client in clients.iterdir()}
    assert left == {"client-0": ["3-train"], "client-1": [], "client-2": []}, "only one client had something to keep"


def test_updates_are_removed_unless_kept(federation: Federation) -> None:
    session = federation.run()
    kept = federation.run(keep={"updates": True})
    pattern = "round-1/*/train.reply/out.npz"
    assert not list(federation.home.session_folder(session.session_id).glob(pattern))
    assert len(list(federation.home.session_folder(kept.session_id).glob(pattern))) == 3


def test_logs_of_every_client_stay(federation: Federation) -> None:
    session = federation.run(plan={"client-2": "raise"})
    logs = sorted(federation.home.session_folder(session.session_id).glob("round-1/*/train/stderr.log"))
    assert len(logs) == 3
    assert "ValueError: expected 784 features, got 785" in logs[2].read_text()


def test_stop_request_ends_the_session_between_rounds(federation: Federation) -> None:
    def stop_after_the_first(event: object) -> None:
        if isinstance(event, RoundFinished):
            from fedpkg.stores.opening import open_store

            with open_store(federation.home) as store:
                store.request_stop(event.round.session_id)

    session = federation.run(federation.config(rounds=5), watch=stop_after_the_first)
    assert session.status == "stopped"
    assert len(federation.store.list_rounds(session.session_id)) == 1
    assert federation.resume(session.session_id).status == "finished"
    assert len(federation.store.list_rounds(session.session_id)) == 5


def test_finished_session_can_be_given_more_rounds(federation: Federation) -> None:
    session = federation.run(rounds=1)
    longer = federation.resume(session.session_id, rounds=3)
    assert longer.status == "finished"
    whole = federation.run(rounds=3)
    assert federation.digests(session.session_id) == federation.digests(whole.session_id)


def test_second_controller_is_told_who_holds_the_home(federation: Federation) -> None:
    with federation.home.lock(), pytest.raises(HomeLocked, match="is in use by process"):
        federation.run()


def test_seed_of_positions_is_staged_as_positions(federation: Federation, tmp_path: Path) -> None:
    seed = tmp_path / "seed.npz"
    np.savez_compressed(seed, **{"0": np.zeros((3, 2), np.float32), "1": np.ones(4, np.float64)})
    session = federation.run(seed_model=str(seed))
    assert list(federation.model(f"{session.session_id}.1")) == ["0", "1"]
    assert federation.store.get_model(f"{session.session_id}.1").keys == "positions"


def test_seed_with_nan_is_refused_before_anything_runs(federation: Federation, tmp_path: Path) -> None:
    seed = tmp_path / "seed.npz"
    np.savez(seed, w=np.array([np.nan], np.float32))
    with pytest.raises(ConfigError, match="tensor 'w' has NaN or infinite values"):
        federation.run(seed_model=str(seed))
    assert federation.store.list_sessions() == []


def test_build_that_fails_says_why(federation: Federation) -> None:
    with pytest.raises(EntryPointFailed, match=r"'build' exited with code 1(.|\n)*no seed today"):
        federation.run(arguments={"build": {"how": "raise"}})


def test_package_without_build_needs_a_seed_model(federation: Federation, tmp_path: Path) -> None:
    package = tmp_path / "client"
    package.mkdir()
    (package / "fedn.yaml").write_text("entry_points:\n  train:\n    command: python train.py\n")
    with pytest.raises(ConfigError, match="no seed model"):
        federation.run(package=str(package))
