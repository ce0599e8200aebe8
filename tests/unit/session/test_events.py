"""Events are data: each has its bytes as JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path

import msgspec
import pytest

from fedpkg.controller import events
from fedpkg.library import run
from fedpkg.stores.base import CombinerRow, ModelRow, RequestRow, RoundRow, SessionRow
from fedpkg.stores.home import Home
from fedpkg.waist.answer import Answer, Failure
from fedpkg.waist.order import Order

SESSION = SessionRow(
    session_id="s",
    name="n",
    config={"rounds": 2},
    package_digest="d",
    seed=7,
    num_rounds=2,
    created_at=1.0,
    updated_at=2.0,
    rules=3,
)
ORDER = Order(
    task_id="s/1/c/train",
    session_id="s",
    round_number=1,
    client_id="c",
    entry_point="train",
    package="d",
    reply_spec="e",
    arguments={"lr": 0.1},
)
REQUEST = RequestRow(
    session_id="s",
    round_number=1,
    request_id="1",
    number=1,
    entry_point="train",
    reply_kind="update",
    cohort=["c"],
    target=1,
    started_at=1.0,
)
ROUND = RoundRow(session_id="s", round_number=1, cohort=["c"], target=1, started_at=1.0, metrics={"loss": math.nan})
COMBINER = CombinerRow(
    session_id="s", round_number=1, path="north/kiruna", status="failed", reason="1 usable updates of 2, 2 are required"
)
MODEL = ModelRow(digest="d", session_id="s", round_number=1, suffix=".npz", keys="names", size_bytes=3, created_at=1.0)
FAILED = Answer(task_id="s/1/c/train", status="failed", failure=Failure("exit_code", "exited with 3"), exit_code=3)
GOLDEN = {
    "preparing": events.Preparing(what="the clients' data"),
    "warming": events.Warming(is_warming=True),
    "estimated": events.Estimated(disk_bytes=5_000_000_000, num_tasks=20_000, seconds=None),
    "session_started": events.SessionStarted(session=SESSION, num_clients=1, first_round=1, num_rounds=2),
    "rounds_announced": events.RoundsAnnounced(num_rounds=3),
    "phase_started": events.PhaseStarted(round_number=1, phase="train", num_clients=1),
    "waiting": events.Waiting(round_number=1, num_requests=1, num_outstanding=2),
    "request_asked": events.RequestAsked(request=REQUEST),
    "task_started": events.TaskStarted(order=ORDER),
    "task_ended": events.TaskEnded(order=ORDER, answer=FAILED),
    "combiner_reported": events.CombinerReported(combiner=COMBINER),
    "round_finished": events.RoundFinished(round=ROUND, model=MODEL),
    "session_ended": events.SessionEnded(session=SESSION),
}
NOT_ALWAYS = {"combiner_reported", "warming", "waiting", "estimated", "rounds_announced"}
FILE = Path(__file__).parent / "events.jsonl"  # made by: python tests/unit/session/test_events.py


def lines() -> list[bytes]:
    return [events.encode(event.at("s", 12.5)) for event in GOLDEN.values()]


@pytest.mark.parametrize("name", GOLDEN)
def test_each_event_has_its_bytes(name: str) -> None:
    expected = dict(zip(GOLDEN, FILE.read_bytes().splitlines(), strict=True))[name]
    assert events.encode(GOLDEN[name].at("s", 12.5)) == expected
    plain = json.loads(expected)
    assert (plain["event"], plain["session_id"], plain["time"]) == (name, "s", 12.5)


def test_there_are_no_other_events() -> None:
    assert {type(event) for event in GOLDEN.values()} == set(events.Event.__subclasses__())


def test_events_are_frozen() -> None:
    with pytest.raises(AttributeError):
        GOLDEN["preparing"].time = 1.0


def test_every_event_of_a_real_session_is_json_and_says_which_session_and_when(tmp_path: Path) -> None:
    seen: list[events.Event] = []
    package = Path(__file__).resolve().parents[2] / "packages" / "misbehave"
    clients = {"package": str(package), "rounds": 1, "clients": {"count": 2}}
    plan = {"arguments": {"train": {"plan": '{"client-0": "exit3"}'}}}
    session = run({**clients, **plan}, Home.open(tmp_path / "home"), watch=seen.append, progress=False)
    told = [json.loads(events.encode(event)) for event in seen]
    assert {one["event"] for one in told} - {"warming"} == set(GOLDEN) - NOT_ALWAYS
    assert all(one["time"] > 0 for one in told)
    assert {one["session_id"] for one in told} == {"", session.id}
    started = [one["order"]["task_id"] for one in told if one["event"] == "task_started"]
    ended = [one["order"]["task_id"] for one in told if one["event"] == "task_ended"]
    assert sorted(started) == sorted(ended) and len(started) == 4
    answers = [msgspec.convert(one["answer"], Answer) for one in told if one["event"] == "task_ended"]
    assert [answer.exit_code for answer in answers if answer.failure] == [3]


if __name__ == "__main__":
    FILE.write_bytes(b"".join(line + b"\n" for line in lines()))
