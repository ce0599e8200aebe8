"""Outstanding requests of sessions that were stopped, killed, or failed: their order of arrival is replayed."""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from at_once import AtOnce
from counting import make_package
from driven import killed, outcome_of, wait_until_gone, write_config
from federation import DRIFTING, Federation
from stepping import STEPPING, Stepping, arrivals_of, gated, noted, notes_of
from test_choosing import Killed

from fedpkg.config import RunConfig
from fedpkg.controller.events import Event, RoundFinished, TaskEnded
from fedpkg.errors import AggregationError, ConfigError, SessionFailed
from fedpkg.stores.base import ClientRow, SessionRow
from fedpkg.strategies.base import Arrived, Request, State, StepContext
from fedpkg.strategies.traits import Traits
from fedpkg.types import ReplyKind
from fedpkg.weights.records import Records

FEDBUFF = {"name": "fedbuff", "buffer": 2, "concurrency": 4, "clock": "wall"}
FEDASYNC = {"name": "fedasync", "concurrency": 3, "clock": "wall"}
FEDAVG = {"name": "fedavg"}


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


def repeated(federation: Federation, session_id: str) -> list[object]:
    """What a replay repeats: models, metrics, and who counted; it does not run those whose replies did not count."""
    digests, rounds, *averages = outcome_of(federation, session_id)
    return [digests, [row[:3] for row in rounds], averages]  # type: ignore[attr-defined]


@pytest.mark.parametrize("strategy", [FEDBUFF, FEDASYNC, FEDAVG], ids=lambda strategy: strategy["name"])
@pytest.mark.every_push("fedbuff")
def test_a_session_in_real_time_is_replayed_to_the_same_bits(federation: Federation, strategy: dict[str, Any]) -> None:
    sampler = {"count": 2, "over_selection": 1.0} if strategy is FEDAVG else {}
    first = federation.run(config_of(federation, strategy=strategy, sampler=sampler))
    again = federation.run(config_of(federation, strategy=strategy, sampler=sampler, replay=first.session_id))
    assert repeated(federation, again.session_id) == repeated(federation, first.session_id)
    assert arrivals_of(federation, again.session_id) == arrivals_of(federation, first.session_id)
    assert federation.findings() == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "every", [pytest.param(23, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.soak)], ids=str
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


@pytest.mark.parametrize("strategy", ["fedavg", "stepping:Stepping"])
def test_a_replay_that_fails_goes_on_with_the_clients_that_it_replays(
    federation: Federation, at_once: AtOnce, strategy: str
) -> None:
    """Here others could count: those that failed in the session that is replayed, and come first now."""

    def steps(state: State, ctx: StepContext, notes: list[Any]) -> Iterator[Any]:
        if ctx.round_number == 1:
            clients = tuple(client.client_id for client in ctx.clients)
            yield Request(payload=state["model"], clients=clients, wait="nothing", required=3)
        else:
            (replies,) = yield Arrived()
            notes.append([reply.client_id for reply in replies])

    def outcome(session: SessionRow) -> list[object]:
        state = federation.store.load_strategy_state(session.session_id)
        return [repeated(federation, session.session_id), state and state[1].get("notes")]

    Stepping.steps = steps
    changes: dict[str, Any] = {"clients": 5, "rounds": 2, "strategy": {"name": strategy}, "round": {"required": 3}}
    if strategy == "fedavg":
        changes["sampler"] = {"count": 3, "over_selection": 0.6}
    at_once.fails = frozenset(["client-0@1"])
    first = federation.run(**changes)
    at_once.fails = frozenset(["client-1@1", "client-2@1"])
    with pytest.raises(SessionFailed, match="3 are required"):
        federation.run(**changes, replay=first.session_id)
    at_once.fails = frozenset()
    again = federation.resume(federation.store.list_sessions()[-1].session_id)
    assert outcome(again) == outcome(first)


def test_only_a_session_of_the_same_seed_can_be_replayed(federation: Federation) -> None:
    first = federation.run(config_of(federation, rounds=1))
    for changes, word in (
        ({"seed": 1}, "has another 'seed': 0, here 1"),
        ({"clients": 4}, "has another 'clients': "),
        ({"strategy": FEDASYNC}, "has another 'strategy': "),
        ({"data": {"sources": {"iris": "sklearn/iris"}}}, r"has another 'data\.sources': {}, here {'iris': "),
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
    """They began from the state that it left. Rows are written every 50 ms, this one no later than the new answer's."""

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
            for _ in range(200):
                tasks = federation.store.list_tasks(session_id)
                statuses = [task.status for task in tasks if task.request_id == "second"]
                if statuses != ["ok"]:
                    break
                time.sleep(0.05)
            seen.append(statuses)

    federation.resume(session_id, watch=watch)
    assert seen == [["cancelled"]]
    assert [note[3] for note in notes_of(federation, session_id)[0]] == [[1], [2]]


def test_requests_of_a_failed_attempt_that_are_not_asked_again_go_when_the_round_commits(
    federation: Federation, at_once: AtOnce
) -> None:
    def steps(state: State, ctx: StepContext, notes: list[Any]) -> Iterator[Any]:
        yield Request(payload=state["model"], clients=("client-0",), wait="nothing")
        yield Arrived()
        if not attempts:
            attempts.append(1)
            yield Request(request_id="ghost", payload=state["model"], clients=("client-1",), entry_point="train")
            raise AggregationError("not this time")
        yield Request(request_id="then", payload=state["model"], clients=("client-2",))

    attempts: list[int] = []
    Stepping.steps = steps
    with pytest.raises(AggregationError, match="not this time"):
        federation.run(strategy=STEPPING)
    (session,) = federation.store.list_sessions()

    def statuses() -> dict[str, str]:
        return {row.request_id: row.status for row in federation.store.list_requests(session.session_id)}

    assert statuses()["ghost"] == "failed", "until the round is taken again, that is what became of it"
    federation.resume(session.session_id)
    assert statuses() == {"1": "answered", "then": "answered"}
    assert federation.findings() == []


def test_after_a_round_without_a_usable_reply_the_step_may_leave_other_requests_outstanding(
    federation: Federation, at_once: AtOnce
) -> None:
    """What it asks goes by the replies, of which there were none in the first attempt."""

    def steps(state: State, ctx: StepContext, notes: list[Any]) -> Iterator[Any]:
        if ctx.round_number == 1:
            found = yield Request(payload=state["model"], clients=("client-0",), required=0)
            client_id = "client-1" if found.missing else "client-2"
            yield Request(request_id="stays", payload=state["model"], clients=(client_id,), wait="nothing")
        else:
            notes.extend(replies.asked for replies in (yield Arrived()))

    Stepping.steps = steps
    at_once.fails = frozenset(["client-0@1"])
    with pytest.raises(SessionFailed, match="none of the 1 calls of clients returned a usable reply"):
        federation.run(rounds=2, strategy=STEPPING)
    at_once.fails = frozenset()
    (session,) = federation.store.list_sessions()
    federation.resume(session.session_id)
    assert notes_of(federation, session.session_id)[1] == [["client-2"]]
    assert federation.findings() == []


@pytest.mark.parametrize("is_resumed", [False, True], ids=["in one go", "resumed"])
def test_outstanding_requests_of_many_rounds_share_one_list_of_the_clients_and_keep_no_model(
    federation: Federation, at_once: AtOnce, is_resumed: bool
) -> None:
    def steps(state: State, ctx: StepContext, notes: list[Any]) -> Iterator[Any]:
        if ctx.round_number <= 6:
            clients = (f"client-{ctx.round_number:02}",)
            yield Request(payload=Records({}), reply_kind=ReplyKind.RECORDS, clients=clients, wait="nothing")
        else:
            yield Request(payload=state["model"], clients=("client-00",))
            models.update(id(replies.desk.payloads.model) for replies in (yield Arrived(6)))
            rows.append(num_rows())

    def num_rows() -> int:
        gc.collect()
        return sum(type(one) is ClientRow for one in gc.get_objects())

    rows, models = [num_rows()], set[int]()
    Stepping.steps = steps
    at_once.fails = frozenset(f"client-{n:02}@{n}" for n in range(1, 7))
    session = federation.run(clients=40, rounds=6 if is_resumed else 7, strategy=STEPPING)
    federation.resume(session.session_id, rounds=7)
    assert rows[1] - rows[0] <= 3 * 40
    assert len(models) == 1 and (is_resumed or models == {id(None)})


class HowIsIt(Stepping):
    traits = Traits(entry_points=("how-is.it",))


def test_a_resumed_session_asks_for_the_same_records(federation: Federation, tmp_path: Path) -> None:
    """A reply of records may be as large as the model and some more, also where they were sent without it."""

    def steps(state: State, ctx: StepContext, notes: list[Any]) -> Iterator[Any]:
        if ctx.round_number == 1:
            asks = {"entry_point": "how-is.it", "reply_kind": ReplyKind.RECORDS}
            yield Request(payload=Records({}), clients=("client-1",), wait="nothing", **asks)
        else:
            yield Arrived()

    def watch(event: Event) -> None:
        if isinstance(event, TaskEnded):
            asked.append(event.order.reply_spec)
        if isinstance(event, RoundFinished) and event.round.round_number == 1 and is_to_be_killed:
            raise Killed

    asked, is_to_be_killed = list[str](), False
    HowIsIt.steps = steps
    np.savez(tmp_path / "seed.npz", w=np.ones((3, 2), np.float32))
    config = federation.config(
        package=make_package(tmp_path / "package"),
        seed_model=str(tmp_path / "seed.npz"),
        strategy={"name": "test_outstanding_resumed:HowIsIt"},
        rounds=2,
    )
    federation.run(config, watch=watch)
    is_to_be_killed = True
    with pytest.raises(Killed):
        federation.run(config, watch=watch)
    is_to_be_killed = False
    federation.resume(federation.store.list_sessions()[-1].session_id, watch=watch)
    assert len(asked) >= 2 and len(set(asked)) == 1
