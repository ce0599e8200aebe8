"""Trackers: what they get, in which files, and that a session is the same whatever becomes of them."""

from __future__ import annotations

import csv
import importlib
import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from at_once import AtOnce
from federation import Federation

from fedpkg.cli.main import run_command
from fedpkg.config_reading import config_from_json
from fedpkg.config_shape import Places
from fedpkg.controller.events import Event, RoundFinished
from fedpkg.errors import ConfigError, Interrupted
from fedpkg.session import resuming, tracking
from fedpkg.session.configuration import resolved
from fedpkg.stores.base import CombinerRow, MetricRow, RoundRow, SessionRow, SweepPointRow, SweepRow
from fedpkg.stores.opening import open_store
from fedpkg.tracking import registry
from fedpkg.tracking.base import MOST_COMBINERS, TrackedRound

OWN = Path(__file__).with_name("own_tracker.py")
ROUNDS: dict[str, Any] = {"clients": 3, "rounds": 3, "validation": {"every": 1}}


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(OWN.parent))
    module = importlib.import_module("own_tracker")
    module.CALLS.clear()
    module.RELEASE.clear()
    yield module
    module.RELEASE.set()


def folder_of(federation: Federation, session: SessionRow) -> Path:
    return federation.home.session_folder(session.session_id)


def lines_of(federation: Federation, session: SessionRow) -> list[dict[str, Any]]:
    text = (folder_of(federation, session) / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_every_session_writes_a_line_of_json_for_each_round(federation: Federation, at_once: AtOnce) -> None:
    session = federation.run(**ROUNDS)
    lines = lines_of(federation, session)
    assert [line["round"] for line in lines] == [1, 2, 3]
    rows = federation.store.list_metric_rows(session.session_id, round_number=2)
    assert {(phase, name) for phase, found in lines[1]["metrics"].items() for name in found} == {
        (row.phase, row.metric) for row in rows
    }
    (row,) = [row for row in rows if (row.phase, row.metric) == ("validate", "mean")]
    assert lines[1]["metrics"]["validate"]["mean"]["worst_tenth"] == row.worst_tenth
    assert lines[1]["metrics"]["validate"]["mean"]["deciles"] == row.deciles
    assert lines[1]["num_ok"] == 3 and lines[1]["seconds"] > 0
    assert not [one for one in federation.findings() if "metrics" in str(one.place) or "tracking" in str(one.place)]


def test_trackers_get_what_combiners_did(federation: Federation, at_once: AtOnce) -> None:
    tree = {"children": [{"name": "a", "children": [{"name": "b", "clients": ["client-[01]"]}]}], "others": "root"}
    session = federation.run(**{**ROUNDS, "tracking": ["csv"], "topology": tree})
    found = lines_of(federation, session)[1]["metrics"]["combiner"]
    assert {name: found[name]["weighted_mean"] for name in ("a/ok", "a/b/ok", "a/b/has_failed")} == {
        "a/ok": 1,
        "a/b/ok": 2,
        "a/b/has_failed": 0,
    }
    (folder_of(federation, session) / "tracking" / "csv.json").unlink()
    (folder_of(federation, session) / "metrics.csv").unlink()
    federation.resume(session.session_id, rounds=4)
    assert (folder_of(federation, session) / "metrics.csv").read_text().count(",combiner,a/b/ok,") == 4


def test_trackers_get_the_metrics_of_clusters() -> None:
    row = RoundRow(session_id="s", round_number=1, cohort=[], target=0, started_at=0.0)
    key: dict[str, Any] = {"session_id": "s", "round_number": 1, "phase": "validate", "metric": "loss"}
    metrics = [
        MetricRow(**key, num_clients=1, weighted_mean=float(number), cluster=path)
        for number, path in enumerate(["", *(f"c{number:02}" for number in range(60))])
    ]
    found = TrackedRound(row, metrics).scalars()
    assert found["validate/loss"] == 0.0
    assert found["cluster/c00/validate/loss"] == 1.0
    assert sum(tag.startswith("cluster/") for tag in found) == 50


def test_trackers_get_the_combiners_that_are_nearest_to_the_root() -> None:
    row = RoundRow(session_id="s", round_number=1, cohort=[], target=0, started_at=1.0)
    paths = [f"{name}/{k}" for name in "ab" for k in range(MOST_COMBINERS)] + ["a", "b", ""]
    combiners = [CombinerRow(session_id="s", round_number=1, path=path, status="ok") for path in paths]
    told = [
        name.rpartition("/")[0] for _, name, _ in TrackedRound(row, [], combiners=combiners).rows() if "/ok" in name
    ]
    assert told == ["a", "b", *(f"a/{k}" for k in range(MOST_COMBINERS - 2))]


def test_trackers_get_the_choices_of_a_sweep_without_secrets(
    federation: Federation, at_once: AtOnce, monkeypatch: pytest.MonkeyPatch, own: ModuleType
) -> None:
    session = federation.run(**ROUNDS, tracking=[{"name": "own_tracker:Noting"}])
    with open_store(federation.home) as store:
        choices = {"environment.API_TOKEN": "hunter2", "seed": 1}
        sweep = SweepRow(name="try", kind="grid", source="run.yaml", overrides=[], created_at=1.0, updated_at=1.0)
        store.sweeps.create(
            sweep, [SweepPointRow(sweep="try", number=0, choices=choices, session_id=session.session_id)]
        )
    seen = []
    monkeypatch.setattr(own.Noting, "begin", lambda self, run: seen.append(run.sweep()))
    federation.resume(session.session_id, rounds=4)
    assert seen == [("try", {"environment.API_TOKEN": "(hidden)", "seed": 1})]


def test_csv_has_a_line_for_each_metric_of_each_round(federation: Federation, at_once: AtOnce, tmp_path: Path) -> None:
    at_once.validates = {"client-0": {"a, b\nc": 1.0, "mean": float("nan")}}
    session = federation.run(**ROUNDS, tracking=[{"name": "csv", "folder": str(tmp_path / "in this folder")}])
    with (tmp_path / "in this folder" / f"{session.session_id}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    stored = federation.store.list_metric_rows(session.session_id)
    found = {(int(r["round"]), r["phase"], r["metric"]): r for r in rows if r["phase"] != "round"}
    assert set(found) == {(row.round_number, row.phase, row.metric.replace("\n", " ")) for row in stored}
    for row in stored:
        line = found[row.round_number, row.phase, row.metric.replace("\n", " ")]
        assert float(line["weighted_mean"]) == row.weighted_mean and float(line["std"]) == row.std
        assert [float(line[f"decile_{number}"]) for number in range(1, 10)] == row.deciles
    assert {line["metric"] for line in rows if line["phase"] == "round"} == {"seconds", "ok", "failed", "examples"}


@pytest.mark.parametrize("last", [1, 2, 3])
def test_resumed_session_does_not_write_a_round_twice(federation: Federation, at_once: AtOnce, last: int) -> None:
    """Interrupted after a round, with all that a kill may leave: a line in part, and a round that was not noted."""

    def interrupt(event: Event) -> None:
        if isinstance(event, RoundFinished) and event.round.round_number == last:
            raise KeyboardInterrupt

    config = {**ROUNDS, "tracking": ["csv"]}
    with pytest.raises(Interrupted):
        federation.run(watch=interrupt, **config)
    session = federation.store.list_sessions()[-1]
    folder = folder_of(federation, session)
    (folder / "tracking" / "csv.json").write_text(json.dumps({"rounds": last - 1, "kept": {}}))
    for name in ("metrics.jsonl", "metrics.csv"):
        with (folder / name).open("a") as file:
            file.write('{"round": 4, "sess')
    federation.resume(session.session_id)
    lines = lines_of(federation, session)
    assert [line["round"] for line in lines] == [1, 2, 3]
    with (folder / "metrics.csv").open(newline="") as file:
        keys = [(row["round"], row["phase"], row["metric"]) for row in csv.DictReader(file)]
    assert len(keys) == len(set(keys)) and {key[0] for key in keys} == {"1", "2", "3"}
    undisturbed = federation.run(**config)
    assert [line["metrics"] for line in lines_of(federation, undisturbed)] == [line["metrics"] for line in lines]


def test_trackers_do_not_change_a_bit_and_a_session_is_resumed_with_others(
    federation: Federation, at_once: AtOnce, own: ModuleType, tmp_path: Path
) -> None:
    plain = federation.run(**ROUNDS)
    file = tmp_path / "own.py"
    file.write_text(
        "from fedpkg.tracking import register_tracker\nfrom own_tracker import Noting\n"
        "@register_tracker('mine')\nclass Mine(Noting):\n    'Mine.'\n"
    )
    session = federation.run(**ROUNDS, tracking=["csv", {"file": str(file)}])
    assert [call for call in own.CALLS if call[0] == "round"] == [("round", number) for number in (1, 2, 3)]
    own.CALLS.clear()
    assert federation.digests(plain.session_id) == federation.digests(session.session_id)
    trackers = ["csv", {"name": "own_tracker:Noting"}]
    resuming.resume(plain.session_id, federation.home, watch=lambda _: None, rounds=4, tracking=trackers)
    assert [("begin", 0), *(("round", number) for number in range(1, 5)), ("end", "finished")] == own.CALLS
    with (folder_of(federation, plain) / "metrics.csv").open(newline="") as file:
        assert {row["round"] for row in csv.DictReader(file)} == {"1", "2", "3", "4"}
    own.CALLS.clear()
    federation.resume(plain.session_id, rounds=5)  # it keeps its trackers
    assert own.CALLS == [("begin", 4), ("round", 5), ("end", "finished")]


def test_command_line_resumes_with_other_trackers(federation: Federation, at_once: AtOnce) -> None:
    session = federation.run(**ROUNDS)
    words = ["session", "resume", session.session_id, "--home", str(federation.home.root)]
    assert run_command([*words, "tracking=[csv]"]) == 0
    assert (folder_of(federation, session) / "metrics.csv").exists()
    assert run_command([*words, "tracking=csv"]) == ConfigError.exit_code
    assert run_command([*words, "tracking=[cvs]"]) == ConfigError.exit_code
    assert run_command([*words, "seed=1"]) == ConfigError.exit_code


@pytest.mark.parametrize("where", ["begin", "round", "end"])
def test_tracker_that_fails_is_named_once_and_the_session_goes_on(
    federation: Federation, at_once: AtOnce, own: ModuleType, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    with caplog.at_level(logging.WARNING, "fedpkg.tracking"):
        session = federation.run(**ROUNDS, tracking=[{"name": "own_tracker:Failing", "where": where}])
    assert session.status == "finished"
    (record,) = [record for record in caplog.records if record.name == "fedpkg.tracking"]
    assert "tracker=own_tracker:Failing" in record.getMessage() and "the server is down" in record.getMessage()
    assert [line["round"] for line in lines_of(federation, session)] == [1, 2, 3]


@pytest.mark.parametrize("where", ["begin", "round"])
def test_tracker_that_fails_for_a_while_gets_all_rounds_once_in_order(
    federation: Federation, at_once: AtOnce, own: ModuleType, where: str
) -> None:
    federation.run(**ROUNDS, tracking=[{"name": "own_tracker:Failing", "where": where, "until": 3}])
    assert [call for call in own.CALLS if call[0] == "round"] == [("round", number) for number in (1, 2, 3)]


def test_tracker_that_hangs_is_named_once_and_does_not_delay_the_session(
    federation: Federation,
    at_once: AtOnce,
    own: ModuleType,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracking, "PATIENCE_S", 0.3)
    before = time.monotonic()
    session = federation.run(**ROUNDS, tracking=[{"name": "own_tracker:Hanging"}])
    assert session.status == "finished" and time.monotonic() - before < 20
    (record,) = [record for record in caplog.records if "hangs" in record.getMessage()]
    assert "tracker own_tracker:Hanging" in record.getMessage()
    assert [line["round"] for line in lines_of(federation, session)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["cvs"], "there is no tracker 'cvs'; did you mean 'csv'?"),
        (["csv", {"name": "csv"}], "tracker 'csv' is named twice"),
        (["jsonl"], "tracker 'jsonl' is always on"),
        ([{"name": "tensorboard", "histogram": True}], "histogram"),
        ([{"name": "tensorboard", "aggregates": ["sdt"]}], "aggregates"),
        ([{"folder": "x"}], "the name of a tracker"),
        (["no_such_module:Tracker"], "'no_such_module:Tracker' cannot be imported"),
        (["os.path:join"], None),
    ],
)
def test_what_is_no_tracker_is_refused_before_the_run(
    federation: Federation, given: list[Any], problem: str | None
) -> None:
    config = config_from_json({"package": "p", "rounds": 1, "clients": {"count": 1}, "tracking": given})
    if problem is None:  # found when it is made: the session goes on
        with pytest.raises(ConfigError):
            registry.make_tracker(resolved(config, Places("run.yaml")).tracking[0])  # type: ignore[arg-type]
        return
    with pytest.raises(ConfigError) as error:
        resolved(config, Places("run.yaml"))
    assert problem in error.value.message


def test_tracker_without_its_library_is_refused_before_the_run(
    federation: Federation, at_once: AtOnce, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.LIBRARIES, "tensorboard", "no_such_library")
    with pytest.raises(ConfigError, match="tracker 'tensorboard' needs no_such_library") as error:
        federation.run(**ROUNDS, tracking=["tensorboard"])
    assert 'pip install "fedpkg[tensorboard]"' in str(error.value.hint)


def test_paths_of_trackers_are_relative_to_the_run_yaml(tmp_path: Path) -> None:
    from fedpkg.session.configuration import load

    text = "package: p\nrounds: 1\nclients: {count: 1}\ntracking: [{name: csv, folder: runs}]\n"
    (tmp_path / "run.yaml").write_text(text)
    assert load(tmp_path / "run.yaml").config.tracking == [{"name": "csv", "folder": str(tmp_path / "runs")}]


def test_plain_run_imports_the_library_of_no_tracker() -> None:
    code = (
        "import sys; from fedpkg.session import tracking; from fedpkg.tracking.registry import make_tracker;"
        "make_tracker({'name': 'jsonl'});"
        "print(sorted({'tensorboardX', 'mlflow', 'wandb'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
