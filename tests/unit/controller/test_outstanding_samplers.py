"""Samplers beside outstanding requests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from at_once import AtOnce
from federation import DRIFTING, Federation
from stepping import STEPPING, Stepping, gated, notes_of
from test_choosing import Killed, all_of

from fedpkg.config import RunConfig
from fedpkg.controller.events import Event, RoundFinished, TaskEnded
from fedpkg.errors import SessionFailed
from fedpkg.stores.home import Home
from fedpkg.strategies.base import Arrived, Request, State, Step, StepContext, StepResult

HELD_OUT = "client-3"
AROUND: dict[str, Any] = {
    "groups": {"wenige": 2, "viele": 3},
    "availability": {"rate": 0.8},
    "dropout": 0.2,
    "held_out": [HELD_OUT],
}
SAMPLERS = [
    {**AROUND, "name": "uniform"},
    {**AROUND, "name": "importance", "metric": "mean"},
    {**AROUND, "name": "least_reused"},
    {**AROUND, "name": "poisson"},
]


def test_the_sampler_does_not_ask_nobody_while_requests_are_outstanding(federation: Federation, tmp_path: Path) -> None:
    """Else round after round would pass in no time, without a single reply."""

    def steps(state: State, ctx: StepContext, notes: list[Any]) -> Iterator[Any]:
        yield Request(payload=state["model"], wait="nothing")

    Stepping.steps = steps
    arguments = gated(tmp_path, *(f"client-{n}@1" for n in range(3)))
    with pytest.raises(
        SessionFailed, match=r"round 2: the sampler found 0 clients, 1 are required; 3 clients have outstanding"
    ):
        federation.run(package=str(DRIFTING), rounds=3, strategy=STEPPING, arguments=arguments)


def test_a_request_that_is_asked_again_after_a_resume_draws_its_drop_outs_again(
    federation: Federation, at_once: AtOnce
) -> None:
    def steps(state: State, ctx: StepContext, notes: list[Any]) -> Iterator[Any]:
        if ctx.round_number == 1:
            yield Request(request_id="all", payload=state["model"], clients=ctx.sample(), wait="nothing", required=6)
        else:
            (found,) = yield Arrived()
            notes.append([found.missing, len(list(found))])

    Stepping.steps = steps
    with pytest.raises(SessionFailed, match="usable updates, 6 are required"):
        federation.run(clients=6, rounds=2, strategy=STEPPING, sampler={"dropout": 0.5})
    (session,) = federation.store.list_sessions()
    for _ in range(12):
        try:
            federation.resume(session.session_id)
            break
        except SessionFailed:
            continue
    assert notes_of(federation, session.session_id)[1] == [[[], 6]]
    again = [task.failure for task in federation.store.list_tasks(session.session_id) if task.attempt == 2]
    assert set(again) == {None, "dropout"}


class Leaving:
    """Of each cohort, leaves the request to the first client outstanding, and averages the others and what arrives."""

    def init(self, seed_model: Any) -> State:
        return {"model": seed_model, "busy": []}

    def step(self, state: State, ctx: StepContext) -> Step:
        w, busy, cohort = state["model"], set(state["busy"]), ctx.sample()
        assert not busy.intersection(cohort) and HELD_OUT not in cohort
        yield Request(request_id="stays", payload=w, clients=cohort[:1], wait="nothing")
        found = [(yield Request(payload=w, clients=cohort[1:], required=0))] if cohort[1:] else []
        found += (yield Arrived(2)) if ctx.round_number % 3 == 0 else ()
        updates = [reply.weights for replies in found for reply in replies]
        busy = {*busy, *cohort[:1]}.difference(*(replies.asked for replies in found))
        model = sum(updates[1:], updates[0]) * (1 / len(updates)) if updates else w
        return StepResult({"model": model, "busy": sorted(busy)}, metrics={"busy": len(busy)})


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler["name"])
@pytest.mark.every_push("least_reused|poisson")
def test_beside_outstanding_requests_samplers_resume_to_the_same_cohorts_and_bits(
    federation: Federation, at_once: AtOnce, tmp_path: Path, sampler: dict[str, Any]
) -> None:
    """With availability, groups, drop-outs and a client that is held out; stopped after each round and in each."""

    def config_of(federation: Federation) -> RunConfig:
        return federation.config(
            clients={"count": 9, "groups": {"wenige": ["client-[0-3]"], "viele": ["client-[4-8]"]}},
            rounds=6,
            strategy={"name": "test_outstanding_samplers:Leaving"},
            sampler=sampler,
            validation={"every": 1},
        )

    def watch(event: Event) -> None:
        nonlocal stops
        is_task = isinstance(event, TaskEnded) and event.order.entry_point == "train"
        if is_task if stops % 2 == 0 else isinstance(event, RoundFinished):
            stops += 1
            raise Killed

    at_once.fails = frozenset(["client-2@2", "client-5@3"])
    calm = federation.run(config_of(federation)).session_id
    busy = [row.strategy_metrics["busy"] for row in federation.store.list_rounds(calm)]
    assert busy == [1, 2, 1, 2, 3, 2]
    other, stops = Federation(Home.open(tmp_path / "gestört" / ".fedpkg")), 0
    with pytest.raises(Killed):
        other.run(config_of(other), watch=watch)
    session_id = other.store.list_sessions()[-1].session_id
    for _ in range(9):
        with pytest.raises(Killed):
            other.resume(session_id, watch=watch)
    other.resume(session_id)
    assert all_of(other, session_id) == all_of(federation, calm)
    assert not [finding for finding in other.findings() if finding.damaged]


def test_a_round_in_which_clients_are_away_passes_while_requests_are_outstanding(
    federation: Federation, at_once: AtOnce, tmp_path: Path
) -> None:
    """It is their absence, and not the outstanding request, why there is nobody to ask."""

    def steps(state: State, ctx: StepContext, notes: list[Any]) -> Iterator[Any]:
        if ctx.round_number == 1:
            yield Request(payload=state["model"], clients=("client-0",), wait="nothing")
        elif ctx.round_number == 2:
            yield Request(payload=state["model"])
        else:
            notes.extend(replies.asked for replies in (yield Arrived()))

    Stepping.steps = steps
    trace = tmp_path / "Spur.csv"
    trace.write_text("client,from_round,to_round\nclient-0,1,3\nclient-1,1,1\nclient-2,3,3\n")
    session = federation.run(
        rounds=3, strategy=STEPPING, sampler={"availability": {"trace": str(trace)}}, round={"required": 2}
    )
    assert [row.cohort for row in federation.store.list_rounds(session.session_id)] == [[], [], ["client-0"]]
    assert notes_of(federation, session.session_id)[-1] == [["client-0"]]
