"""A far end that lies, or a line that damages: that client's recorded failure, and never more."""

from __future__ import annotations

import io
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from counting import make_package
from desk import FarProcess
from federation import Federation
from near_end import over

from fedpkg.errors import EntryPointFailed
from fedpkg.files import tree_checksum
from fedpkg.session import executors
from fedpkg.stores.home import Home


def replaced(answer: dict[str, Any], **changes: Any) -> bytes:
    return json.dumps({**answer, **changes}).encode()


def of_reply(**changes: Any) -> Callable[[dict[str, Any]], bytes]:
    return lambda answer: replaced(answer, reply={**answer["reply"], **changes})


def told(**changes: Any) -> Callable[[dict[str, Any]], bytes]:
    return lambda answer: replaced(answer, **changes)


WILD = told(
    started_at=math.nan,
    wall_s=-math.inf,
    phases={"run": math.nan, "stage": 0.5, "a\x1b": 1.0},
    exit_code=1 << 90,
    signal=-1 << 90,
    log_tail="x" * 100_000 + "\udcff\x00",
    command="\ud800",
    folder="../../../../etc",
    metadata={"num_examples": 1e300},
    num_examples=1e300,
    metrics={"a": math.inf},
    converted="\x1b[31m",
    usage={"cpu_s": -1.0, "peak_memory_bytes": 1 << 90},
)
# By client: what its answer is made into, and what is recorded of that; None: it is as good as any.
ANSWERS: list[tuple[Callable[[dict[str, Any]], bytes], str | None, str]] = [
    (told(task_id="another"), "bad_answer", "its answer is for another task, 'another'"),
    (told(task_id=""), "bad_answer", "another task"),
    (lambda answer: b"{", "executor", "not a valid Answer: "),
    (lambda answer: b'{"metrics":' + b"[" * 200_000, "executor", "not a valid Answer: "),
    (told(secret=1), "executor", "unknown field `secret`"),
    (told(status="cancelled"), "executor", "the executor cancelled it without a request to do so"),
    (told(status="failed"), "executor", "it failed, and its executor gave no reason"),
    (told(status="failed", failure={"kind": "no_space", "message": "x"}), "executor", "at the executor: x"),
    (told(status="failed", failure={"kind": "dropout", "message": "y"}), "executor", "at the executor: y"),
    (told(status="failed", failure={"kind": "\x1b[1m", "message": "\x1b"}), "executor", "at the executor: \\x1b"),
    (told(reply=None), "no_file", "its answer is ok, but has no reply"),
    (of_reply(name="../../out.npz"), "bad_file", "'../../out.npz', which is not valid for a reply's file"),
    (of_reply(name="out.pt"), "bad_file", "'out.pt', which is not valid for a reply's file"),
    (of_reply(size_bytes=10**12), "too_big", "'out.npz' has 1000000000000 bytes; the limit is"),
    (of_reply(size_bytes=10), "executor", "what came of its reply is not what was said"),
    (of_reply(size_bytes=-1), "executor", "what came of its reply is not what was said"),
    (of_reply(checksum="00000000"), "bad_file", "its reply was damaged in transit"),
    (told(state="no-such", state_checksum="00000000"), "bad_state", "its state "),
    (told(state="../../../..", state_checksum="00000000"), "bad_state", "its state "),
    (told(state="\x1b" * 3), "bad_state", "the state has an invalid name"),
    (told(state="x" * 5_000), "bad_state", "the state has an invalid name"),
    (told(started_at=1e9), None, ""),
    (told(started_at=1e10), None, ""),
    (WILD, None, ""),
]
HONEST_WITH_A_CLOCK = 3  # the last ones


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


MODEL = {"b": np.zeros(10, np.float32), "steps": np.array(0)}
NAN = npz(w=np.full((10, 32), np.nan, np.float32), **MODEL)
PICKLE = npz(w=np.array([{"a": 1}], dtype=object), **MODEL)
METADATA = b'{"num_examples": 10}'


def flipped(value: Any, body: bytes) -> tuple[Any, bytes]:
    return value, body[:200] + bytes([body[200] ^ 1]) + body[201:]


def larger(value: Any, body: bytes) -> tuple[Any, bytes]:
    return [[name, size_bytes + 1_000_000] for name, size_bytes in value], body + b"x" * 2_000_000


# By client: what its reply's files are made into.
REPLIES: list[tuple[Callable[[Any, bytes], tuple[Any, bytes]], str, str]] = [
    (flipped, "bad_file", "its reply was damaged in transit"),
    (larger, "executor", "what came of its reply is not what was said"),
    (lambda value, body: (value, body[:100]), "bad_file", "its reply was damaged in transit"),
    (lambda value, body: ([["../x", 1]], body), "executor", "what came of its reply is not what was said: '../x'"),
    (lambda value, body: ([["out.npz", -1]], body), "executor", "what came of its reply is not what was said"),
    (lambda value, body: ([], b""), "executor", "No such file"),
    (lambda value, body: (7, body), "bad_file", "its reply cannot be read: TypeError"),
]
# By client: a reply that is not as asked, of which the answer says that it is.
FORGED: list[tuple[bytes, bytes, str, str]] = [
    (NAN, METADATA, "not_finite", "tensor 'w' has NaN or infinite values"),
    (PICKLE, METADATA, "bad_file", "object"),
    (npz(w=np.zeros((1, 32), np.float32), **MODEL), METADATA, "mismatch", "'w'"),
    (npz(w=np.zeros((10, 32), np.float32), **MODEL), b'{"num_examples": -1}', "num_examples", "negative"),
    (npz(w=np.zeros((10, 32), np.float32), **MODEL), b"{", "bad_metadata", "is not JSON"),
]
TEXT = np.frombuffer(b"[" * 100, np.uint8)
RECORDS: list[tuple[bytes, bytes, str, str]] = [
    (npz(**{"a/b": np.full(3, np.nan)}), b"{}", "", ""),
    (npz(w=np.ones(3)), b"{}", "bad_file", "its key is not that of a records file"),
    (npz(**{"a/b": np.array([{}], dtype=object)}), b"{}", "bad_file", "contains a pickle"),
    (npz(**{"a/b": np.ones(3), "%61/b": np.ones(3)}), b"{}", "bad_file", "two of its keys mean the same tensor"),
    (npz(**{"%json": TEXT}), b"{}", "bad_file", "nested too deeply"),
    (npz(**{"a/b": np.ones(3)}), b'{"num_examples": -1}', "num_examples", "negative"),
]
HONEST = 2
CLIENTS = HONEST + len(ANSWERS) + len(REPLIES) + len(FORGED)


class Liar:
    """Stands in the line, and makes of what each client's task sent what the lists above say."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ends = (HONEST, HONEST + len(ANSWERS), HONEST + len(ANSWERS) + len(REPLIES), CLIENTS)
        self.answers, self.replies, self.forged = (range(a, b) for a, b in itertools.pairwise(ends))

    def expected(self) -> dict[str, tuple[str | None, str]]:
        said = [(None, "")] * HONEST + [lie[1:] for lie in ANSWERS] + [lie[1:] for lie in REPLIES]
        said += [lie[2:] for lie in FORGED]
        return {f"client-{number:02}": one for number, one in enumerate(said)}

    def __call__(self, call: str, facts: dict[str, Any], value: Any, body: bytes) -> tuple[Any, bytes]:
        if call == "submit" and "/train" in (answer := json.loads(body))["task_id"]:
            who = client_of(answer["task_id"])
            if who in self.answers:
                return value, ANSWERS[who - self.answers.start][0](answer)
            if who in self.forged:
                return value, of_reply(**self.forgery(who))(answer)
        elif call == "fetch" and "/train" in facts["task_id"]:
            who = client_of(facts["task_id"])
            if who in self.replies:
                return REPLIES[who - self.replies.start][0](value, body)
            if who in self.forged:
                model, metadata = FORGED[who - self.forged.start][:2]
                return [["out.npz", len(model)], ["out.npz-metadata", len(metadata)]], model + metadata
        return value, body

    def forgery(self, who: int) -> dict[str, Any]:
        return forgery(self.folder / str(who), *FORGED[who - self.forged.start][:2])


def forgery(folder: Path, reply: bytes, metadata: bytes) -> dict[str, Any]:
    """What an answer says of such a reply."""
    folder.mkdir()
    (folder / "out.npz").write_bytes(reply)
    (folder / "out.npz-metadata").write_bytes(metadata)
    return {"size_bytes": len(reply), "checksum": tree_checksum(folder)}


def client_of(task_id: str) -> int:
    return int(task_id.split("/")[2].partition("-")[2])


@pytest.fixture(scope="module")
def far() -> Iterator[FarProcess]:
    with FarProcess() as far:
        yield far


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(Home.open(tmp_path / "ein Heim" / ".fedpkg"))


@pytest.mark.slow
def test_each_lie_is_that_clients_failure_and_never_more(
    far: FarProcess, federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    liar = Liar(tmp_path)
    monkeypatch.setattr(executors, "make_executor", over(far.port, tamper=liar))
    session = federation.run(clients=CLIENTS, executor={"name": "forkserver", "workers": 2}, round={"required": 1})
    assert session.status == "finished"
    expected = liar.expected()
    tasks = {name: federation.task(session, name) for name in expected}
    amiss = {
        name: (tasks[name].failure, tasks[name].message)
        for name, (kind, words) in expected.items()
        if tasks[name].failure != kind or words not in (tasks[name].message or "")
    }
    assert amiss == {}
    assert federation.steps_taken(session, 1) == pytest.approx(1.0)
    (row,) = federation.store.list_rounds(session.session_id)
    num_ok = HONEST + HONEST_WITH_A_CLOCK
    assert (row.num_ok, row.num_examples) == (num_ok, 10.0 * num_ok)
    wild = tasks[f"client-{HONEST + len(ANSWERS) - 1:02}"]
    assert (wild.wall_s, wild.phases, wild.exit_code, wild.signal) == (0, {"stage": 0.5}, None, None)
    (request,) = federation.store.list_requests(session.session_id)
    assert all(request.started_at <= task.started_at <= time.time() for task in tasks.values()), "by our own clock"
    assert wild.folder == f"sessions/{session.session_id}/round-1/{wild.client_id}/train"
    assert len(wild.log_tail or "") < 65_000
    assert federation.findings() == []
    assert not list(federation.home.session_folder(session.session_id).rglob("*.reply")), "what was refused is gone"


def test_records_that_are_none_are_that_clients_failure(
    far: FarProcess, federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lie(call: str, facts: dict[str, Any], value: Any, body: bytes) -> tuple[Any, bytes]:
        if call == "submit":
            answer = json.loads(body)
            who = client_of(answer["task_id"])
            return value, of_reply(**forgery(tmp_path / str(who), *RECORDS[who][:2]))(answer)
        if call == "fetch":
            reply, metadata = RECORDS[client_of(facts["task_id"])][:2]
            return [["out.npz", len(reply)], ["out.npz-metadata", len(metadata)]], reply + metadata
        return value, body

    monkeypatch.setattr(executors, "make_executor", over(far.port, tamper=lie))
    package = make_package(tmp_path / "ein Paket", fails="")
    strategy = {"name": "counting:Counting"}
    session = federation.run(package=package, strategy=strategy, clients=len(RECORDS))
    (row,) = federation.store.list_rounds(session.session_id)
    assert (row.counted, row.num_failed) == (["client-0"], len(RECORDS) - 1)
    for number, (_, _, kind, words) in enumerate(RECORDS[1:], 1):
        task = federation.task(session, f"client-{number}", "how-is.it")
        assert task.failure == kind and words in (task.message or ""), (number, task.message)
    assert federation.findings() == []


@pytest.mark.slow
def test_lie_of_who_builds_the_seed_begins_no_session(
    far: FarProcess, federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lie(call: str, facts: dict[str, Any], value: Any, body: bytes) -> tuple[Any, bytes]:
        return value, of_reply(name="../seed.npz")(json.loads(body)) if call == "submit" else body

    monkeypatch.setattr(executors, "make_executor", over(far.port, tamper=lie))
    with pytest.raises(EntryPointFailed, match=r"'\.\./seed\.npz', which is not valid for a reply's file"):
        federation.run(clients=2)
    assert federation.store.list_sessions() == []
