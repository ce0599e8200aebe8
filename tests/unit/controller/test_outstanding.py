"""Requests that stay outstanding while their strategy goes on: their order of arrival is recorded, and replayed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from federation import DRIFTING, Federation
from test_resume import killed, outcome_of, wait_until_gone, write_config

from fedpkg.config import RunConfig
from fedpkg.controller.events import Event, RoundFinished, TaskEnded
from fedpkg.errors import AggregationError, ConfigError, SessionFailed
from fedpkg.strategies.base import Arrived, Replies, Request, State, Step, StepContext, StepResult
from fedpkg.strategies.traits import Traits

FEDBUFF = {"name": "fedbuff", "buffer": 2, "concurrency": 4, "clock": "wall"}
FEDASYNC = {"name": "fedasync", "concurrency": 3, "clock": "wall"}


def config_of(federation: Federation, **changes: Any) -> RunConfig:
    """Clients with states and draws that nobody seeds, who take a time that nobody can repeat; some fail."""
    return federation.config(
        **{
            "package": str(DRIFTING),
            "clients": 5,
            "rounds": 4,
            "strategy": FEDBUFF,
            "validation": {"every": 2},
            "executor": {"workers": 3},
            "arguments": {"train": {"up-to": 0.1, "fails": "client-1@1,client-2@2"}},
            **changes,
        }
    )


def arrivals_of(federation: Federation, session_id: str) -> list[list[list[Any]]]:
    return [row.arrivals for row in federation.store.list_rounds(session_id)]


def repeated(federation: Federation, session_id: str) -> list[object]:
    """What a replay repeats: models, metrics, and who counted; it does not run those whose replies did not count."""
    digests, rounds, averages = outcome_of(federation, session_id)
    return [digests, [row[:3] for row in rounds], averages]  # type: ignore[attr-defined]


@pytest.mark.parametrize("strategy", [FEDBUFF, FEDASYNC], ids=lambda strategy: strategy["name"])
def test_a_session_in_real_time_is_replayed_to_the_same_bits(federation: Federation, strategy: dict[str, Any]) -> None:
    first = federation.run(config_of(federation, strategy=strategy))
    again = federation.run(config_of(federation, strategy=strategy, replay=first.session_id))
    assert repeated(federation, again.session_id) == repeated(federation, first.session_id)
    assert arrivals_of(federation, again.session_id) == arrivals_of(federation, first.session_id)
    assert federation.findings() == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "every", [pytest.param(9, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.soak)], ids=str
)
def test_killed_at_any_event_the_arrivals_on_record_are_replayed(federation: Federation, every: int) -> None:
    config = config_of(federation)
    federation.run(config)
    path = write_config(federation, config)
    for kill_at in range(2, len(federation.events) - 8, every):  # not every session has as many
        killed(federation, "--run", path, "--kill-at", str(kill_at))
        wait_until_gone(federation)
        session_id = federation.store.list_sessions()[-1].session_id
        before = [row for rows in arrivals_of(federation, session_id) for row in rows]
        assert federation.resume(session_id).status == "finished"
        after = [row for rows in arrivals_of(federation, session_id) for row in rows]
        assert after[: len(before)] == before
        replayed = federation.run(config_of(federation, replay=session_id))
        assert repeated(federation, replayed.session_id) == repeated(federation, session_id), f"event {kill_at}"


class Stepping:
    """A strategy whose step a test gives, as a generator of requests."""

    steps: ClassVar[Any]

    def init(self, seed_model: Any) -> State:
        return {"model": seed_model, "notes": []}

    def step(self, state: State, ctx: StepContext) -> Step:
        notes: list[Any] = []
        yield from type(self).steps(state, ctx, notes)
        return StepResult({**state, "notes": [*state["notes"], notes]}, metrics={"notes": float(len(notes))})


STEPPING = {"name": "test_outstanding:Stepping"}


def noted(replies: Replies) -> list[Any]:
    """What a step may note of an answer: who, when asked, and how often the client had been called."""
    calls = [int(reply.metadata["calls"]) for reply in replies]  # type: ignore[call-overload]
    return [replies.round_number, replies.request_id, list(replies.asked), calls]


def gated(tmp_path: Path, *names: str) -> dict[str, dict[str, str]]:
    return {"train": {"gate": ",".join(names), "arrivals": str(tmp_path)}}


def notes_of(federation: Federation, session_id: str) -> list[Any]:
    saved = federation.store.load_strategy_state(session_id)
    assert saved is not None
    notes: list[Any] = saved[1]["notes"]
    return notes


def test_the_step_goes_on_while_a_request_is_outstanding(federation: Federation, tmp_path: Path) -> None:
    """A straggler of round 1 counts in round 3. Until then the sampler passes over it, and it validates aside."""
    cohorts = []

    def steps(state: State, ctx: StepContext, notes: list[Any]) -> Iterator[Any]:
        if ctx.round_number == 1:
            stays = yield Request(payload=state["model"], clients=("client-0",), wait="nothing")
            assert stays.asked == ("client-0",)
            with pytest.raises(SessionFailed, match="request 1: it is outstanding, without replies yet"):
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
    with pytest.raises(SessionFailed, match=r"waits for client-0, but outstanding requests to them come first"):
        federation.run(package=str(DRIFTING), strategy=STEPPING, arguments=gated(tmp_path, "client-0@1"))


@pytest.mark.parametrize(
    ("request_of", "section", "reason"),
    [
        ({}, {"clock": {"seconds": {}}}, "virtual time says which answer arrives first"),
        ({"sets": True}, {}, "its replies must fit the global model, which it does not send alone"),
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
        round={"timeout_s": 5},
        arguments=gated(tmp_path, "client-0@1"),
    )
    assert notes_of(federation, session.session_id) == [[["client-1"]]]
    (left,) = (row for row in federation.store.list_requests(session.session_id) if row.status == "asked")
    assert left.request_id == "client-0"
    (tmp_path / "open").touch()


def test_an_answer_that_nobody_got_is_not_lost(federation: Federation, tmp_path: Path) -> None:
    """It arrives in the last round. The session goes on later, in another process: it has not to run again."""

    def steps(state: State, ctx: StepContext, notes: list[Any]) -> Iterator[Any]:
        if ctx.round_number == 1:
            yield Request(request_id="old", payload=state["model"], clients=("client-0",), wait="nothing")
            replies = yield Request(payload=state["model"], clients=("client-1",))
            assert len(list(replies)) == 1
            while not (yield Request(payload=state["model"], clients=("client-1",))) or not ended:
                pass
        else:
            (found,) = yield Arrived()
            notes.append(noted(found))

    ended: list[str] = []
    Stepping.steps = steps

    def watch(event: Event) -> None:
        if isinstance(event, TaskEnded) and event.order.request_id == "old":
            ended.append(event.order.task_id)

    session = federation.run(
        package=str(DRIFTING), clients=2, strategy=STEPPING, keep={"task_folders": "last 1"}, watch=watch
    )
    folder = federation.home.session_folder(session.session_id) / "round-1" / "client-0"
    assert (folder / "train.reply").is_dir()
    federation.resume(session.session_id, rounds=2, watch=watch)
    assert notes_of(federation, session.session_id)[1] == [[1, "old", ["client-0"], [1]]]
    assert len(ended) == 1
    assert not folder.exists()


def test_the_strategy_of_the_page_runs_as_it_stands_there(federation: Federation, tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "outstanding-requests.md").read_text()
    (code,) = (one for one in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "class Stragglers" in one)
    (tmp_path / "stragglers.py").write_text(code)
    strategy = {"file": str(tmp_path / "stragglers.py"), "enough": 2}
    arguments = {"train": {"up-to": 0.05}}
    session = federation.run(package=str(DRIFTING), clients=4, rounds=3, strategy=strategy, arguments=arguments)
    assert [row.num_ok for row in federation.store.list_rounds(session.session_id)] == [2, 2, 2]


def test_only_a_session_of_the_same_seed_can_be_replayed(federation: Federation) -> None:
    first = federation.run(config_of(federation, rounds=1))
    for changes, word in (
        ({"seed": 1}, "has another 'seed': 0, here 1"),
        ({"clients": 4}, "has another 'clients': "),
        ({"strategy": FEDASYNC}, "has another 'strategy': "),
        ({"rounds": 2}, "has finished 1 rounds; this run has 2"),
    ):
        with pytest.raises(ConfigError, match=f"'replay' names session {first.session_id}, which {word}"):
            federation.run(config_of(federation, **{"rounds": 1, "replay": first.session_id, **changes}))


def test_a_round_in_which_nobody_answers_in_time_fails(federation: Federation, tmp_path: Path) -> None:
    gates = gated(tmp_path, *(f"client-{n}@1" for n in range(5)))
    with pytest.raises(AggregationError, match=r"no client has answered within round\.timeout_s"):
        federation.run(config_of(federation, rounds=1, round={"timeout_s": 2}, arguments=gates))
    (tmp_path / "open").touch()
    session_id = federation.store.list_sessions()[-1].session_id
    assert federation.resume(session_id).status == "finished"
    shutil.rmtree(tmp_path, ignore_errors=True)


def test_the_replies_of_an_outstanding_request_cannot_be_looped_over(federation: Federation) -> None:
    def steps(state: State, ctx: StepContext, notes: list[Any]) -> Iterator[Any]:
        stays = yield Request(payload=state["model"], clients=("client-0",), wait="nothing")
        yield from stays  # a loop takes the iterator of the replies, without their `__next__`

    Stepping.steps = steps
    with pytest.raises(SessionFailed, match="it is outstanding, without replies yet"):
        federation.run(package=str(DRIFTING), strategy=STEPPING)


def test_a_step_cannot_wait_for_fewer_than_no_requests(federation: Federation) -> None:
    def steps(state: State, ctx: StepContext, notes: list[Any]) -> Iterator[Any]:
        yield Arrived(-1)

    Stepping.steps = steps
    with pytest.raises(SessionFailed, match="round 1: a strategy waits for -1 requests"):
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
    with pytest.raises(SessionFailed, match=r"waits for client-0, but outstanding requests to them come first"):
        federation.run(package=str(DRIFTING), strategy=STEPPING)


def test_a_request_with_too_few_usable_replies_is_asked_again(federation: Federation) -> None:
    def steps(state: State, ctx: StepContext, notes: list[Any]) -> Iterator[Any]:
        clients = ("client-0", "client-1")
        yield Request(request_id="both", payload=state["model"], clients=clients, wait="nothing", required=2)
        yield Arrived()

    Stepping.steps = steps
    with pytest.raises(SessionFailed, match="1 usable updates, 2 are required"):
        federation.run(package=str(DRIFTING), strategy=STEPPING, arguments={"train": {"fails": "client-1@1"}})
    (session,) = federation.store.list_sessions()
    with pytest.raises(SessionFailed, match="1 usable updates, 2 are required"):
        federation.resume(session.session_id)
    calls = [(row.client_id, row.attempt) for row in federation.store.list_tasks(session.session_id)]
    assert [call for call in calls if call[0] in ("client-0", "client-1")] == [
        ("client-0", 1),
        ("client-1", 1),
        ("client-1", 2),
    ]


def test_after_a_failed_round_other_requests_may_arrive_first_and_the_step_may_ask_otherwise(
    federation: Federation,
) -> None:
    def steps(state: State, ctx: StepContext, notes: list[Any]) -> Iterator[Any]:
        yield Request(payload=state["model"], clients=("client-0",), wait="nothing")
        yield Arrived()
        client_id = chosen.pop(0)  # stands for what depends on the order of arrival
        notes.append(noted((yield Request(request_id="then", payload=state["model"], clients=(client_id,))))[2:])
        yield Request(payload=state["model"], clients=("client-0",), wait="nothing")
        if chosen:
            raise AggregationError("not this time")

    Stepping.steps = steps
    chosen = ["client-1", "client-2", "client-1"]
    with pytest.raises(AggregationError, match="not this time"):
        federation.run(package=str(DRIFTING), strategy=STEPPING)
    (session,) = federation.store.list_sessions()
    with pytest.raises(AggregationError, match="not this time"):
        federation.resume(session.session_id)
    assert federation.resume(session.session_id).status == "finished"
    assert notes_of(federation, session.session_id) == [[[["client-1"], [1]]]], "what failed rounds left is gone"


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


def test_a_resumed_session_has_one_copy_of_what_many_requests_send(federation: Federation, tmp_path: Path) -> None:
    def steps(state: State, ctx: StepContext, notes: list[Any]) -> Iterator[Any]:
        if ctx.round_number == 1:
            for n in range(3):
                yield Request(payload=state["model"], clients=(f"client-{n}",), wait="nothing")
        else:
            found = yield Arrived(3)
            sent.extend(id(replies.request.payload) for replies in found)

    sent: list[int] = []
    Stepping.steps = steps
    session = federation.run(package=str(DRIFTING), strategy=STEPPING)
    federation.resume(session.session_id, rounds=2)
    assert len(sent) == 3
    assert len(set(sent)) == 1


def test_the_sampler_does_not_ask_nobody_while_requests_are_outstanding(federation: Federation, tmp_path: Path) -> None:
    """Else round after round would pass in no time, without a single reply."""

    def steps(state: State, ctx: StepContext, notes: list[Any]) -> Iterator[Any]:
        yield Request(payload=state["model"], wait="nothing")

    Stepping.steps = steps
    arguments = gated(tmp_path, *(f"client-{n}@1" for n in range(3)))
    with pytest.raises(
        SessionFailed, match=r"round 2: the sampler finds 0 clients, 1 are required: 3 have outstanding"
    ):
        federation.run(package=str(DRIFTING), rounds=3, strategy=STEPPING, arguments=arguments)


def test_when_a_session_ends_so_do_its_outstanding_tasks(federation: Federation, tmp_path: Path) -> None:
    """They leave nothing behind; a session that gets more rounds asks again."""

    def steps(state: State, ctx: StepContext, notes: list[Any]) -> Iterator[Any]:
        if ctx.round_number == 1:
            yield Request(request_id="stays", payload=state["model"], clients=("client-0",), wait="nothing")
        else:
            (found,) = yield Arrived()
            notes.append(noted(found))

    Stepping.steps = steps
    config = federation.config(package=str(DRIFTING), strategy=STEPPING, arguments=gated(tmp_path, "client-0@1"))
    session = federation.run(config)
    assert federation.task(session, "client-0").status == "cancelled"
    assert federation.findings() == []
    (tmp_path / "open").touch()
    federation.resume(session.session_id, rounds=2)
    assert notes_of(federation, session.session_id)[1] == [[1, "stays", ["client-0"], [1]]]
    assert federation.findings() == []


def test_where_a_task_runs_again_those_after_it_do_too(federation: Federation, tmp_path: Path) -> None:
    """They began from the state that it left. That is on record before it runs, whenever the controller is killed."""

    def steps(state: State, ctx: StepContext, notes: list[Any]) -> Iterator[Any]:
        for name in ("first", "second"):
            yield Request(request_id=name, payload=state["model"], clients=("client-0",), wait="nothing")
        notes.extend(noted(replies) for replies in (yield Arrived(2)))
        if not (tmp_path / "mended").exists():
            raise AggregationError("not yet")

    Stepping.steps = steps
    with pytest.raises(AggregationError):
        federation.run(package=str(DRIFTING), strategy=STEPPING)
    session_id = federation.store.list_sessions()[-1].session_id
    (first,) = (one for one in federation.store.list_updates(session_id) if one.task_id.endswith("/train"))
    (federation.home.root / first.path).unlink()
    (tmp_path / "mended").touch()
    seen: list[list[str]] = []

    def watch(event: Event) -> None:
        if isinstance(event, TaskEnded) and event.order.request_id == "first":
            tasks = federation.store.list_tasks(session_id)
            seen.append([task.status for task in tasks if task.request_id == "second"])

    federation.resume(session_id, watch=watch)
    assert seen == [["cancelled"]]
    assert [note[3] for note in notes_of(federation, session_id)[0]] == [[1], [2]]


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
