"""FedAvg and its relatives in sessions: the controller averages replies, with the bits and words of the app itself."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from federation import Federation
from records_at_once import RecordsAtOnce
from server_apps import IMPORTS, dying
from warm import warm_python

from fedpkg.apps.strategy import averaging
from fedpkg.client.records import load_records, save_records
from fedpkg.config import dump_config
from fedpkg.dispatch.site import Job
from fedpkg.errors import SessionFailed
from fedpkg.session import executors
from tests.unit.apps.test_server_app import DRIVE, OneIsSilent, config_of, outcome_of

APP = (
    IMPORTS
    + """
from fedpkg.apps.strategy import FedAdam, FedAvg, FedAvgM

class Own(BASE):
    LINES

@app.main()
def main(grid, context):
    def evaluate(server_round, arrays):
        die(f"evaluated-{server_round}")
        return MetricRecord({"sum": float(sum(one.numpy().astype("f8").sum() for one in arrays.values()))})

    initial = ArrayRecord({"w": np.zeros(300, "f4"), "b": np.random.rand(2, 2)})
    found = Own(SETTINGS).start(grid, initial, num_rounds=3, evaluate_fn=evaluate)
    log.info("%s", [dict(one) for one in found.train_metrics_clientapp.values()])
"""
)
IN_THE_APP = "def aggregate_train(self, *given):\n        return super().aggregate_train(*given)"  # needs the replies


class Spoiling(RecordsAtOnce):
    """``spoils``: by number of the client, what is wrong with the reply."""

    def __init__(self) -> None:
        super().__init__()
        self.spoils: dict[int, str] = {}

    def write(self, job: Job) -> None:
        super().write(job)
        what = self.spoils.get(job.order.partition_id or 0)
        if what is None:
            return
        records = load_records(job.place.out)
        arrays, data = dict(records.sets.get("arrays", {})), records.data
        metrics = data["records"][1]["values"]
        if what == "nan" and arrays:
            arrays["w"][7] = np.nan
        elif what == "shape" and arrays:
            arrays["w"] = arrays["w"][:1]
        elif what == "more" and arrays:
            arrays["evil"] = np.ones(3)
        elif what == "part" and arrays:
            arrays = {"lora": np.full(3, job.order.partition_id, "f4")}
        elif what == "half" and arrays:
            arrays = {name: one.astype("f2") for name, one in arrays.items()}
        elif what == "huge" and arrays:
            arrays["w"] += np.float64(1e38)
        elif what == "no metric":
            del metrics["num-examples"]
        elif what == "negative":
            metrics["num-examples"] = -1
        elif what == "name":  # half of a surrogate pair, which a file cannot have as a name
            data["records"].append({"name": "\ud800", "kind": "metrics", "values": {"many": [0.5] * 300}})
        elif what == "no app":
            data = {"other": 1}
        elif what == "two":
            data["records"].append({"name": "more", "kind": "arrays"})
            data["records"][0]["name"] = "model"
        sets = {"model": arrays, "more": arrays} if what == "two" else {"arrays": arrays}
        save_records(job.place.out, sets if arrays else {}, data)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> Spoiling:
    executor = Spoiling()
    monkeypatch.setattr(executors, "make_executor", executor.make)
    return executor


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[averaging.Averaged]]:
    """What the controller has averaged."""
    found: list[averaging.Averaged] = []
    really = averaging.averaged

    def averaged(*given: Any, **more: Any) -> averaging.Averaged:
        found.append(really(*given, **more))
        return found[-1]

    monkeypatch.setattr(averaging, "averaged", averaged)
    yield found


def app(base: str, lines: str = "pass", settings: str = "", marks: str = "", *places: str) -> str:
    text = APP.replace("BASE", base).replace("LINES", lines).replace("SETTINGS", settings)
    return dying(text, marks, *places)


BAD = {
    1: "nan",
    3: "shape",
    4: "more",
    5: "half",
    6: "no metric",
    7: "negative",
    8: "no app",
    9: "two",
    10: "part",
    11: "huge",
    13: "name",
}


@pytest.mark.parametrize(
    ("base", "settings", "spoils", "models"),
    [
        ("FedAvg", "fraction_train=0.5, weighted_by_key='loss'", BAD, 3),
        ("FedAdam", "", BAD, 3),
        ("FedAvg", "", dict.fromkeys(range(20), "part"), 2),
        ("FedAdam", "", dict.fromkeys(range(20), "part"), 0),
    ],
)
@pytest.mark.every_push("FedAvg-frac")
def test_the_mean_is_that_of_the_app_and_bad_replies_are_reported_alike(
    base: str,
    settings: str,
    spoils: dict[int, str],
    models: int,
    federation: Federation,
    tmp_path: Path,
    at_once: Spoiling,
    calls: list[averaging.Averaged],
    caplog: pytest.LogCaptureFixture,
) -> None:
    at_once.spoils, at_once.fails = spoils, {"client-02@1", "client-12@all"}
    outcomes, said = [], []
    for lines in ("pass", IN_THE_APP):
        caplog.clear()
        with caplog.at_level("INFO", logger="fedpkg.server_app"):
            session = federation.run(config_of(federation, tmp_path, app(base, lines, settings), clients=20))
        assert (session.status, session.error) == ("finished", None)
        outcomes.append(outcome_of(federation, session.session_id))
        assert len({row.digest for row in federation.store.list_models(session.session_id)}) == models
        said.append([record.getMessage() for record in caplog.records if record.name == "fedpkg.server_app"])
        assert len(calls) == 3  # by the first app
    assert outcomes[0] == outcomes[1]
    assert said[0] == said[1]
    assert len(said[0]) > 4 and not any("Traceback" in line for line in said[0])


@pytest.mark.soak
def test_an_app_without_the_replies_goes_on_to_the_same_bits_after_a_kill(
    federation: Federation, tmp_path: Path, at_once: Spoiling, calls: list[averaging.Averaged]
) -> None:
    at_once.spoils = {1: "nan"}
    whole = federation.run(config_of(federation, tmp_path, app("FedAdam")))
    marks = tmp_path / "marks"
    marks.mkdir()
    places = ("evaluated-1", "evaluated-3")
    killed = federation.run(config_of(federation, tmp_path, app("FedAdam", "pass", "", str(marks), *places)))
    assert {path.name for path in marks.iterdir()} == set(places)
    assert len(calls) == 6
    assert outcome_of(federation, killed.session_id) == outcome_of(federation, whole.session_id)


def test_a_session_that_was_resumed_can_be_replayed(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[averaging.Averaged]
) -> None:
    """A late reply is left out by the clock alone: the replay leaves it out because it did not count."""
    executor = OneIsSilent()
    executor.silent = "client-2"
    monkeypatch.setattr(executors, "make_executor", executor.make)
    mended = app("FedAvg", settings="fraction_evaluate=0").replace("num_rounds=3", "num_rounds=3, timeout=0.2")
    broken = mended.replace('die(f"evaluated-{server_round}")', "assert server_round < 2, 'broken'")
    with pytest.raises(SessionFailed, match="broken"):
        federation.run(config_of(federation, tmp_path, broken))
    [failed] = federation.store.list_sessions()
    config = config_of(federation, tmp_path, mended.replace('die(f"evaluated-{server_round}")', "pass"))
    resumed = federation.resume(failed.session_id)
    rounds = federation.store.list_rounds(resumed.session_id)
    assert [(row.num_ok, row.num_failed) for row in rounds] == [(3, 1)] * 3

    executor.silent = None
    replayed = federation.run(msgspec.structs.replace(config, replay=resumed.session_id))
    assert federation.digests(replayed.session_id) == federation.digests(resumed.session_id)
    other = federation.run(config)
    assert federation.digests(other.session_id) != federation.digests(resumed.session_id)
    assert [len(one.contents) for one in calls[-6:]] == [3, 3, 3, 4, 4, 4]


def test_arrays_of_replies_are_not_kept_for_the_app(federation: Federation, tmp_path: Path, at_once: Spoiling) -> None:
    text = app("FedAvg", settings="fraction_evaluate=0").replace("np.zeros(300,", "np.zeros(1 << 20,")
    sizes = []
    for clients in (4, 8):
        session = federation.run(config_of(federation, tmp_path, text, clients=clients))
        files = federation.home.session_folder(session.session_id) / "coordinator" / "files"
        sizes.append(sum(path.stat().st_size for path in files.iterdir()) >> 20)
    assert sizes[0] == sizes[1] > 0


@pytest.mark.parametrize(
    ("base", "lines", "settings"),
    [
        ("FedAvg", "def aggregator(self):\n        return super().aggregator()", ""),
        ("FedAvg", "pass", "train_metrics_aggr_fn=lambda contents, key: MetricRecord({'n': len(contents[0])})"),
        (
            "FedAvg",
            "def _construct_messages(self, record, nodes, kind):\n"
            "        return [Message(record, node, kind, group_id=str(node)) for node in nodes]",
            "",
        ),
    ],
)
@pytest.mark.every_push("-pass-")
def test_a_strategy_that_may_need_the_replies_gets_them(
    base: str,
    lines: str,
    settings: str,
    federation: Federation,
    tmp_path: Path,
    at_once: Spoiling,
    calls: list[averaging.Averaged],
) -> None:
    session = federation.run(config_of(federation, tmp_path, app(base, lines, settings)))
    assert (session.status, session.error, session.num_rounds) == ("finished", None, 3)
    assert not calls


@pytest.mark.slow
@pytest.mark.parametrize("kill_at", [3, 13])
@pytest.mark.every_push("^3$")
def test_a_session_that_is_killed_while_replies_arrive_goes_on_to_the_same_bits(
    federation: Federation, tmp_path: Path, kill_at: int
) -> None:
    config = config_of(federation, tmp_path, app("FedAvg"), executor={"name": "forkserver", "workers": 2})
    path = tmp_path / "config.json"
    path.write_text(json.dumps(dump_config(config)))
    words = ["--run", str(path), "--kill-at", str(kill_at)]
    assert subprocess.run([*warm_python(), str(DRIVE), str(federation.home.root), *words]).returncode == -9
    [killed] = federation.store.list_sessions()
    session = federation.resume(killed.session_id)
    assert session.status == "finished"
    whole = federation.run(config)
    assert outcome_of(federation, session.session_id) == outcome_of(federation, whole.session_id)
