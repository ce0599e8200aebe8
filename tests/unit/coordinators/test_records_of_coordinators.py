"""Requests of records: without any reply, for single clients, with a time limit, and with metrics of clients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from federation import Federation
from records_at_once import PACKAGE, RecordsAtOnce

from fedpkg.config import RunConfig
from fedpkg.errors import ConfigError, SessionFailed
from fedpkg.session import executors

PROGRAM = """
import json
import numpy as np
from fedpkg.client import Records, coordinator
from fedpkg.client.coordinator import Request

for step in coordinator.rounds():
"""


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> RecordsAtOnce:
    executor = RecordsAtOnce()
    monkeypatch.setattr(executors, "make_executor", executor.make)
    return executor


def config_of(federation: Federation, tmp_path: Path, lines: str, **changes: Any) -> RunConfig:
    folder = tmp_path / "server"
    folder.mkdir(exist_ok=True)
    (folder / "server.py").write_text(PROGRAM + "".join(f"    {line}\n" for line in lines.strip().splitlines()))
    own = {"name": "coordinator", "folder": str(folder), "command": "python server.py", "has_model": False}
    strategy = {**own, **changes.pop("strategy", {})}
    return federation.config(**{"package": str(PACKAGE), "strategy": strategy, **changes})


def told_of(federation: Federation, tmp_path: Path, lines: str, **changes: Any) -> list[Any]:
    """What the program commits as ``told``, by round."""
    session = federation.run(config_of(federation, tmp_path, lines, **changes))
    assert session.status == "finished"
    return [row.strategy_metrics.get("told") for row in federation.store.list_rounds(session.session_id)]


ALL_FAIL = """
[got] = step.ask("query", clients=[one.client_id for one in step.clients], reply_kind="records", required=0)
told = {name: [one.word, len(one.text)] for name, one in got.failures.items()}
step.commit(metrics={"told": [len(got), list(got.missing), told]})
"""


def test_a_request_that_requires_nothing_may_get_nothing(
    federation: Federation, tmp_path: Path, at_once: RecordsAtOnce
) -> None:
    at_once.fails = {f"client-{number}@1" for number in range(3)} | {"client-1@2"}
    first, second = told_of(federation, tmp_path, ALL_FAIL, rounds=2)
    ids = ["client-0", "client-1", "client-2"]
    assert first == [0, ids, {name: ["exit_code", 300] for name in ids}]
    assert second == [2, ["client-1"], {"client-1": ["exit_code", 300]}]


def test_without_saying_so_a_round_without_replies_fails(
    federation: Federation, tmp_path: Path, at_once: RecordsAtOnce
) -> None:
    at_once.fails = {f"client-{number}@all" for number in range(3)}
    with pytest.raises(SessionFailed, match="round 1: 0 usable updates, 1 are required"):
        federation.run(config_of(federation, tmp_path, ALL_FAIL.replace(", required=0", "")))


EACH = """
ids = [one.client_id for one in step.clients]
shared = Records({}, {"said": "to the last two"})
payloads = {name: Records({}, {"said": f"to {name}"}) for name in ids[:-2]} | dict.fromkeys(ids[-2:], shared)
[got] = step.ask("query", clients=ids, payloads=payloads, reply_kind="records", required=0)
assert [reply.client_id for reply in got] == ids
step.commit(metrics={"told": [reply.records().data["told"] for reply in got]})
"""


def test_each_client_gets_its_own_records(federation: Federation, tmp_path: Path, at_once: RecordsAtOnce) -> None:
    [told] = told_of(federation, tmp_path, EACH, clients=5)
    assert told == ["to client-0", "to client-1", "to client-2", "to the last two", "to the last two"]


LARGE = """
ids = [one.client_id for one in step.clients]
arrays = {"w": np.full(3 << 20, 7.0), "b": np.zeros(2)}
payloads = {name: Records({"arrays": {**arrays, "b": np.full(2, i)}}) for i, name in enumerate(ids)}
[got] = step.ask("train", clients=ids, payloads=payloads, reply_kind="records")
assert all(reply.part is None for reply in got)
told = [reply.records().sets["arrays"]["w"].nbytes for reply in got]
[small] = step.ask("train", clients=ids, payload=Records({"arrays": {"w": np.zeros(5)}}), reply_kind="records")
assert all(reply.part is not None for reply in small)
step.commit(metrics={"told": [told, [float(reply.records().sets["arrays"]["w"].sum()) for reply in small]]})
"""


def test_large_records_come_as_files_and_small_ones_as_parts_of_one(
    federation: Federation, tmp_path: Path, at_once: RecordsAtOnce
) -> None:
    config = config_of(federation, tmp_path, LARGE, rounds=2)
    session = federation.run(config)
    first, second = (row.strategy_metrics["told"] for row in federation.store.list_rounds(session.session_id))
    assert first[0] == second[0] == [24 << 20] * 3 and first[1] != second[1]
    files = federation.home.session_folder(session.session_id) / "coordinator" / "files"
    received, sent = {".npz": 3 * 2, ".parts": 2}, {".npz": 1, ".parts": 1}  # the latter in the last round
    assert {end: len(list(files.glob(f"*{end}"))) - sent[end] for end in sent} == received
    assert not federation.findings()


MAKES = """
if step.round_number == 1:
    step.announce(3)
    arrays = {"w": np.zeros(4, np.float32), "mask": np.float32([0, -np.inf])}
ids = [one.client_id for one in step.clients]
[got] = step.ask("train", clients=ids, payload=Records({"arrays": arrays}), reply_kind="records", phase="train")
arrays = {name: np.mean([r.records().sets["arrays"][name] for r in got], 0).astype("f4") for name in arrays}
arrays["mask"] = np.float32([0, -np.inf])
asks = Request("evaluate", clients=ids, payload=Records({"arrays": arrays}), reply_kind="records", phase="validate")
step.ask(asks)
step.commit(None if step.round_number == 1 else arrays, finished="enough" if step.round_number == 3 else None)
"""


def test_a_program_makes_a_model_and_ends_a_session_of_any_number_of_rounds(
    federation: Federation, tmp_path: Path, at_once: RecordsAtOnce
) -> None:
    config = config_of(federation, tmp_path, MAKES, rounds=None, strategy={"has_model": "made"})
    session = federation.run(config)
    assert (session.status, session.error, session.num_rounds) == ("finished", "enough", 3)
    models = federation.store.list_models(session.session_id)
    assert [model.round_number for model in models] == [2, 3]
    assert models[1].parent_id == models[0].model_id and models[0].parent_id is None
    assert list(federation.model(models[1].model_id)) == ["w", "mask"]
    rounds = federation.store.list_rounds(session.session_id)
    mean = (3 / 1 + 4 / 2 + 5 / 3) / 12
    assert [row.train_metrics["loss"] for row in rounds] == pytest.approx([mean] * 3)
    assert [row.metrics["loss"] for row in rounds] == pytest.approx([mean] * 3)
    rows = federation.store.list_validations(session.session_id, round_number=3)
    assert [(row.client_id, row.model_id, row.weight) for row in rows] == [
        (f"client-{number}", models[1].model_id, 3.0 + number) for number in range(3)
    ]
    phases = {(row.phase, row.metric) for row in federation.store.list_metric_rows(session.session_id)}
    assert phases == {("train", "loss"), ("validate", "loss")}
    resumed = federation.resume(session.session_id)
    assert resumed.status == "finished" and len(federation.store.list_rounds(session.session_id)) == 3


def test_any_number_of_rounds_needs_a_strategy_that_ends(
    federation: Federation, tmp_path: Path, at_once: RecordsAtOnce
) -> None:
    with pytest.raises(ConfigError, match="rounds: null is for strategies that end the session themselves; fedavg"):
        federation.run(federation.config(rounds=None, strategy={"name": "fedavg"}))


SLOW = """
ids = [one.client_id for one in step.clients]
payload = Records({}, {"plan": {"client-1": "sleeps", "client-2": "fails"}})
[got] = step.ask("query", clients=ids, payload=payload, reply_kind="records", required=0, timeout_s=3)
told = {name: [one.word, one.text[-46:]] for name, one in got.failures.items()}
step.commit(metrics={"told": [[one.client_id for one in got], told["client-1"], told["client-2"][0]]})
"""


@pytest.mark.slow
def test_a_request_ends_when_its_time_is_over(federation: Federation, tmp_path: Path) -> None:
    [told] = told_of(federation, tmp_path, SLOW, executor={"workers": 3, "name": "forkserver"})
    late = ["round_timeout", "no answer within the request's 3 s"]
    assert told == [["client-0"], late, "exit_code"]
