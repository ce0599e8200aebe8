"""Requests that stay outstanding while their strategy goes on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from at_once import AtOnce
from federation import DRIFTING, Federation
from stepping import STEPPING, Stepping, arrivals_of, gated, noted, notes_of

from fedpkg.cli.options import Settings
from fedpkg.cli.progress import Progress
from fedpkg.controller.events import Event, RoundFinished, TaskEnded, Waiting
from fedpkg.controller.outstanding import Outstanding
from fedpkg.errors import SessionFailed
from fedpkg.strategies.base import Arrived, Request, State, StepContext
from fedpkg.strategies.traits import Traits


def test_the_step_goes_on_while_a_request_is_outstanding(federation: Federation, tmp_path: Path) -> None:
    """A straggler of round 1 counts in round 3. Until then the sampler passes over it, and it validates aside."""
    cohorts = []

    def steps(state: State, ctx: StepContext, notes: list[Any]) -> Iterator[Any]:
        if ctx.round_number == 1:
            stays = yield Request(payload=state["model"], clients=("client-0",), wait="nothing")
            assert stays.asked == ("client-0",)
            with pytest.raises(SessionFailed, match="request 1: it is outstanding and has no replies yet"):
                next(stays)
        cohorts.append(ctx.sample())
        replies = yield Request(payload=state["model"], clients=cohorts[-1])
        notes.append(noted(replies))
        if ctx.round_number < 3:
            assert (yield Arrived(0)) == ()
        else:
            (found,) = yield Arrived(2)  # no more than one is outstanding
            notes.append(noted(found))
            assert (yield Arrived()) == ()

    Stepping.steps = steps
    seen: list[Event] = []

    def watch(event: Event) -> None:
        seen.append(event)
        if isinstance(event, RoundFinished) and event.round.round_number == 2:
            (tmp_path / "open").touch()

    config = federation.config(
        package=str(DRIFTING),
        clients=3,
        rounds=3,
        strategy=STEPPING,
        validation={"every": 1},
        arguments=gated(tmp_path, "client-0@1"),
        keep={"task_folders": "last 1"},
        sampler={"min_clients": 2},
    )
    session = federation.run(config, watch=watch)
    assert cohorts == [("client-1", "client-2")] * 3
    straggler = [1, "1", ["client-0"], [1]]
    assert notes_of(federation, session.session_id)[2][1] == straggler, "what it did aside left no trace in its state"
    rounds = federation.store.list_rounds(session.session_id)
    assert [row.cohort for row in rounds] == [["client-1", "client-2"]] * 2 + [["client-1", "client-2", "client-0"]]
    assert [row.arrivals for row in rounds] == [[[]], [[]], [[[1, "1"]], []]]
    measured = [row.client_id for row in federation.store.list_validations(session.session_id, round_number=2)]
    assert measured == ["client-0", "client-1", "client-2"]
    (task,) = (
        one.order
        for one in seen
        if isinstance(one, TaskEnded) and one.order.client_id == "client-0" and one.order.entry_point == "train"
    )
    assert (task.round_number, task.request_id) == (1, "1")
    assert not (federation.home.session_folder(session.session_id) / "round-1").exists(), "nothing of it is needed now"
    assert federation.findings() == []


def test_requests_to_one_client_are_answered_in_turn(federation: Federation) -> None:
    def steps(state: State, ctx: StepContext, notes: list[Any]) -> Iterator[Any]:
        if ctx.round_number == 1:
            for name in ("first", "second", "third"):
                yield Request(request_id=name, payload=state["model"], clients=("client-0",), wait="nothing")
        for replies in (yield Arrived(1 if ctx.round_number == 1 else 2)):
            notes.append(noted(replies))

    Stepping.steps = steps
    session = federation.run(package=str(DRIFTING), clients=2, rounds=2, strategy=STEPPING)
    first, second, third = ([1, name, ["client-0"], [n]] for n, name in enumerate(("first", "second", "third"), 1))
    assert notes_of(federation, session.session_id) == [[first], [second, third]]


def test_a_step_cannot_wait_for_a_client_with_an_outstanding_request(federation: Federation, tmp_path: Path) -> None:
    def steps(state: State, ctx: StepContext, notes: list[Any]) -> Iterator[Any]:
        yield Request(payload=state["model"], clients=("client-0",), wait="nothing")
        yield Request(payload=state["model"], clients=("client-1", "client-0"))

    Stepping.steps = steps
    with pytest.raises(SessionFailed, match=r"waits for client-0, but these clients have outstanding requests"):
        federation.run(package=str(DRIFTING), strategy=STEPPING, arguments=gated(tmp_path, "client-0@1"))


@pytest.mark.parametrize(
    ("request_of", "section", "reason"),
    [
        ({}, {"clock": {"seconds": {}}}, "virtual time decides which answer arrives first"),
        ({"sets": True}, {}, "its replies must fit the global model, which is not its whole payload"),
    ],
    ids=["virtual clock", "several sets"],
)
def test_some_requests_cannot_stay_outstanding(
    federation: Federation, request_of: dict[str, Any], section: dict[str, Any], reason: str
) -> None:
    def steps(state: State, ctx: StepContext, notes: list[Any]) -> Iterator[Any]:
        payload = {"x": state["model"]} if request_of else state["model"]
        yield Request(payload=payload, clients=("client-0",), wait="nothing")

    Stepping.steps = steps
    with pytest.raises(SessionFailed, match=reason):
        federation.run(package=str(DRIFTING), strategy=STEPPING, **section)


def test_within_the_rounds_time_a_step_gets_what_has_arrived(federation: Federation, tmp_path: Path) -> None:
    def steps(state: State, ctx: StepContext, notes: list[Any]) -> Iterator[Any]:
        for name in ("client-0", "client-1"):
            yield Request(request_id=name, payload=state["model"], clients=(name,), wait="nothing")
        notes.append([replies.request_id for replies in (yield Arrived(2))])

    Stepping.steps = steps
    session = federation.run(
        package=str(DRIFTING),
        strategy=STEPPING,
        round={"timeout_s": 3},
        arguments=gated(tmp_path, "client-0@1"),
    )
    assert notes_of(federation, session.session_id) == [[["client-1"]]]
    (left,) = (row for row in federation.store.list_requests(session.session_id) if row.status == "asked")
    assert left.request_id == "client-0"
    (tmp_path / "open").touch()


def test_the_strategy_of_the_page_runs_as_it_stands_there(federation: Federation, tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "outstanding-requests.md").read_text()
    (code,) = (one for one in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "class Stragglers" in one)
    (tmp_path / "stragglers.py").write_text(code)
    strategy = {"file": str(tmp_path / "stragglers.py"), "enough": 2}
    arguments = {"train": {"up-to": 0.05}}
    session = federation.run(package=str(DRIFTING), clients=4, rounds=3, strategy=strategy, arguments=arguments)
    assert [row.num_ok for row in federation.store.list_rounds(session.session_id)] == [2, 2, 2]


def test_the_replies_of_an_outstanding_request_cannot_be_looped_over(federation: Federation) -> None:
    def steps(state: State, ctx: StepContext, notes: list[Any]) -> Iterator[Any]:
        stays = yield Request(payload=state["model"], clients=("client-0",), wait="nothing")
        yield from stays  # a loop takes the iterator of the replies, without their `__next__`

    Stepping.steps = steps
    with pytest.raises(SessionFailed, match="it is outstanding and has no replies yet"):
        federation.run(package=str(DRIFTING), strategy=STEPPING)


def test_a_step_cannot_wait_for_fewer_than_no_requests(federation: Federation) -> None:
    def steps(state: State, ctx: StepContext, notes: list[Any]) -> Iterator[Any]:
        yield Arrived(-1)

    Stepping.steps = steps
    with pytest.raises(SessionFailed, match="round 1: the strategy waits for -1 requests"):
        federation.run(package=str(DRIFTING), strategy=STEPPING)


def test_requests_that_share_a_client_arrive_in_the_order_in_which_they_were_asked(
    federation: Federation, tmp_path: Path
) -> None:
    """Else the client's state on record would be taken back to that of the first when it arrives."""

    def steps(state: State, ctx: StepContext, notes: list[Any]) -> Iterator[Any]:
        if ctx.round_number == 1:
            for name, clients in (("both", ("client-0", "client-1")), ("one", ("client-0",)), ("other", ("client-2",))):
                yield Request(request_id=name, payload=state["model"], clients=clients, wait="nothing")
            while [row.client_id for row in federation.store.list_tasks(session_id())].count("client-0") < 2:
                yield Request(payload=state["model"], clients=("client-3",))
            notes.extend(replies.request_id for replies in (yield Arrived()))
            (tmp_path / "open").touch()
        elif ctx.round_number == 2:
            notes.extend(replies.request_id for replies in (yield Arrived(2)))
        else:
            notes.append(noted((yield Request(payload=state["model"], clients=("client-0",))))[3])

    def session_id() -> str:
        return federation.store.list_sessions()[-1].session_id

    Stepping.steps = steps
    arguments = gated(tmp_path, "client-1@1")
    federation.run(package=str(DRIFTING), clients=4, rounds=3, strategy=STEPPING, arguments=arguments)
    assert notes_of(federation, session_id()) == [["other"], ["both", "one"], [[3]]]


def test_requests_asked_at_once_cannot_wait_behind_each_other(federation: Federation) -> None:
    def steps(state: State, ctx: StepContext, notes: list[Any]) -> Iterator[Any]:
        stays = Request(payload=state["model"], clients=("client-0",), wait="nothing")
        yield [stays, Request(payload=state["model"], clients=("client-0",))]

    Stepping.steps = steps
    with pytest.raises(SessionFailed, match=r"waits for client-0, but these clients have outstanding requests"):
        federation.run(package=str(DRIFTING), strategy=STEPPING)


def test_polls_cost_nothing_until_something_arrives(federation: Federation, tmp_path: Path) -> None:
    def steps(state: State, ctx: StepContext, notes: list[Any]) -> Iterator[Any]:
        yield Request(payload=state["model"], clients=("client-0",), wait="nothing")
        for _ in range(50):
            assert (yield Arrived(0)) == ()
        written.append(len(federation.store.list_rounds(session_id())[0].arrivals))
        yield Request(payload=state["model"], clients=("client-1",))
        written.append(len(federation.store.list_rounds(session_id())[0].arrivals))
        (tmp_path / "open").touch()
        yield Arrived()

    def session_id() -> str:
        return federation.store.list_sessions()[-1].session_id

    written: list[int] = []
    Stepping.steps = steps
    session = federation.run(package=str(DRIFTING), strategy=STEPPING, arguments=gated(tmp_path, "client-0@1"))
    assert written == [0, 50], "they are on record before what depends on them"
    assert arrivals_of(federation, session.session_id) == [[[]] * 50 + [[[1, "1"]]]]


def test_a_request_to_nobody_arrives(federation: Federation) -> None:
    def steps(state: State, ctx: StepContext, notes: list[Any]) -> Iterator[Any]:
        yield Request(payload=state["model"], clients=(), wait="nothing")
        notes.extend(noted(replies) for replies in (yield Arrived()))

    Stepping.steps = steps
    Stepping.traits = Traits(takes_empty_rounds=True)  # type: ignore[attr-defined]
    try:
        session = federation.run(package=str(DRIFTING), strategy=STEPPING)
    finally:
        del Stepping.traits  # type: ignore[attr-defined]
    assert notes_of(federation, session.session_id) == [[[1, "1", [], []]]]


class Answered:
    """As much of a request as `Outstanding` sees. It counts how often it is asked for its end."""

    def __init__(self, number: int) -> None:
        self.round_number, self.request_id, self.cohort = 1, str(number), (f"client-{number}",)
        self.is_outstanding, self.when_settled = False, lambda: None
        self.has_ended, self.num_looks = False, 0

    @property
    def is_settled(self) -> bool:
        self.num_looks += 1
        return self.has_ended


def test_a_request_that_has_arrived_is_not_looked_at_again() -> None:
    """Thousands may be outstanding, and most of them arrive before the last one ends."""
    outstanding, requests = Outstanding(), [Answered(number) for number in range(4)]
    for request in requests:
        outstanding.add(request)  # type: ignore[arg-type]
    for request in (requests[2], requests[0], requests[3]):
        request.has_ended = True
        before = {one.request_id: one.num_looks for one in requests if one.has_ended and one is not request}
        request.when_settled()
        assert {one.request_id: one.num_looks for one in requests if one.request_id in before} == before
    assert outstanding.arrived(3, lambda: False) == [(1, "2"), (1, "0"), (1, "3")]


READS_BESIDE = """
import json, os, sys, time
import numpy as np
command, *paths = sys.argv[1:]
if command == "build":
    np.savez(paths[0], w=np.zeros(3, np.float32))
    sys.exit()
if command == "train":
    deadline = time.monotonic() + 60
    while not os.path.exists(os.environ["GATE"]) and time.monotonic() < deadline:
        time.sleep(0.002)
with open("../../../data/x.txt") as file:
    x = float(file.read())
if command == "train":
    np.savez(paths[1], w=np.full(3, x, np.float32))
    open(paths[1] + "-metadata", "w").write('{"num_examples": 1}')
else:
    open(paths[1], "w").write(json.dumps({"x": x}))
"""


def test_a_client_that_validates_aside_leaves_the_data_of_its_training_alone(
    federation: Federation, tmp_path: Path
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    commands = "".join(f"  {name}: {{command: python x.py {name}}}\n" for name in ("build", "train", "validate"))
    (package / "fedn.yaml").write_text(f"entry_points:\n{commands}")
    (package / "x.py").write_text(READS_BESIDE)
    for number in range(2):
        (tmp_path / "data" / str(number)).mkdir(parents=True)
        (tmp_path / "data" / str(number) / "x.txt").write_text(str(number + 1))

    def steps(state: State, ctx: StepContext, notes: list[Any]) -> Iterator[Any]:
        if ctx.round_number == 1:
            clients = tuple(client.client_id for client in ctx.clients)
            yield Request(payload=state["model"], clients=clients, wait="nothing")
        else:
            (replies,) = yield Arrived()
            notes.append([float(reply.weights["w"][0]) for reply in replies])

    def watch(event: Event) -> None:
        if isinstance(event, RoundFinished) and event.round.round_number == 1:
            (tmp_path / "gate").touch()

    Stepping.steps = steps
    session = federation.run(
        package=str(package),
        rounds=2,
        clients={"folders": str(tmp_path / "data" / "*"), "links": {"../../../data": "."}},
        strategy=STEPPING,
        validation={"every": 1},
        environment={"GATE": str(tmp_path / "gate")},
        executor={"workers": 4},
        watch=watch,
    )
    assert notes_of(federation, session.session_id)[1] == [[1.0, 2.0]]
    assert federation.findings() == []


def test_bytes_are_of_the_round_that_asked_and_replies_of_the_round_that_gets_them(
    federation: Federation, at_once: AtOnce
) -> None:
    def steps(state: State, ctx: StepContext, notes: list[Any]) -> Iterator[Any]:
        if ctx.round_number == 1:
            yield Request(payload=state["model"], clients=("client-0",), wait="nothing")
        else:
            yield Arrived()

    Stepping.steps = steps
    session = federation.run(rounds=2, strategy=STEPPING)
    (request,) = federation.store.list_requests(session.session_id)
    assert request.round_number == 1 and request.bytes_down > 0 and request.bytes_up > 0
    assert [row.num_ok for row in federation.store.list_rounds(session.session_id)] == [0, 1]


def test_the_live_display_says_what_a_round_waits_for(federation: Federation, tmp_path: Path) -> None:
    """A task of an earlier round that ends is none of those that the round has asked."""

    def steps(state: State, ctx: StepContext, notes: list[Any]) -> Iterator[Any]:
        if ctx.round_number == 1:
            yield Request(payload=state["model"], clients=("client-0",), wait="nothing")
        else:
            yield Arrived()
        yield Request(payload=state["model"], clients=("client-1",))

    def watch(event: Event) -> None:
        progress.take(event)
        if isinstance(event, Waiting):
            (tmp_path / "open").touch()
        done = f"{progress.ok + progress.failed} of {progress.num_clients}"
        seen.append((progress.round_number, done, progress.waits_for.partition("  ")[0]))

    progress, seen = Progress(Settings().command, federation.home, 2), list[Any]()
    Stepping.steps = steps
    arguments = gated(tmp_path, "client-0@1")
    federation.run(package=str(DRIFTING), rounds=2, strategy=STEPPING, arguments=arguments, watch=watch)
    waits = "waiting for 1 of 1 outstanding requests"
    told = [("0 of 0", waits), ("0 of 0", ""), ("0 of 1", ""), ("1 of 1", "aggregating")]
    assert [one for one in dict.fromkeys(seen) if one[0] == 2] == [(2, *one) for one in told]
