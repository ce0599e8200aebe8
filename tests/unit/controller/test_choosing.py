"""Whom rounds ask: samplers in federations, and the same cohorts and bits whatever stops the controller."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from at_once import AtOnce
from driven import killed, outcome_of, write_config
from federation import DRIFTING, Federation

from fedpkg.config import RunConfig
from fedpkg.controller.events import Event, RoundFinished, TaskEnded
from fedpkg.errors import AggregationError, ConfigError, FedpkgError, SessionFailed
from fedpkg.samplers import Scheme
from fedpkg.samplers.base import Candidates
from fedpkg.samplers.registry import SAMPLERS
from fedpkg.stores.home import Home
from fedpkg.strategies import Traits
from fedpkg.strategies.base import Request, State, Step, StepContext

SAMPLER_NAMES = [spec.name for spec in SAMPLERS.specs("sampler") if spec.source == "fedpkg"]
EVERYTHING: dict[str, Any] = {
    "name": "importance",
    "metric": "mean",  # of their validation
    "groups": {"wenige": 2, "viele": 2},
    "availability": {"rate": 0.8},
    "dropout": 0.3,
    "held_out": 1,
}
CLOCK = {"seconds": {"client-1": 5.0}, "bytes_per_s": 1000.0}


def config_of(federation: Federation, name: str) -> RunConfig:
    return federation.config(
        package=str(DRIFTING),
        clients={"count": 9, "groups": {"wenige": ["client-[0-3]"], "viele": ["client-[4-8]"]}},
        rounds=3,
        sampler=EVERYTHING if name == "everything" else {"name": name, "count": 4},
        validation={"every": 1, "count": 2},
        arguments={"train": {"fails": "client-3@2,client-5@3"}},
        **({"clock": CLOCK} if name == "everything" else {}),
    )


def all_of(federation: Federation, session_id: str) -> list[object]:
    """What must be the same however a session was run."""
    history = federation.store.list_client_history(session_id)
    facts = [{**vars(row), "session_id": ""} for row in history]
    rounds = federation.store.list_rounds(session_id)
    virtual = [row.phases.get("virtual_time") for row in rounds]
    tasks = [
        (task.round_number, task.client_id, task.entry_point, task.failure)
        for task in federation.store.list_tasks(session_id)
        if task.status == "failed"
    ]
    return [*outcome_of(federation, session_id), facts, virtual, tasks]


class Killed(BaseException):
    """Nobody catches it: the controller ends where it is."""


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SAMPLER_NAMES, "everything"])
@pytest.mark.every_push("least_reused|round_robin|poisson|power_of_choice|everything")  # each kind of draw
def test_stopped_in_a_round_and_between_rounds_it_resumes_to_the_same_cohorts_and_bits(
    name: str, federation: Federation, tmp_path: Path, at_once: AtOnce
) -> None:
    """One contract over the registry: stopped after a task of each round, and after each round."""
    at_once.fails = frozenset(["client-3@2", "client-5@3"])
    calm = federation.run(config_of(federation, name)).session_id
    cohorts = [row.cohort for row in federation.store.list_rounds(calm)]
    assert len({tuple(cohort) for cohort in cohorts}) == 3, "rounds differ"
    other = Federation(Home.open(tmp_path / "gestört" / ".fedpkg"))
    stops = 0

    def watch(happened: Event) -> None:
        nonlocal stops
        is_first = isinstance(happened, TaskEnded) and happened.order.client_id == cohorts[stops // 2][0]
        if is_first if stops % 2 == 0 else isinstance(happened, RoundFinished):
            stops += 1
            raise Killed

    with pytest.raises(Killed):
        other.run(config_of(other, name), watch=watch)
    session_id = other.store.list_sessions()[-1].session_id
    for _ in range(5):
        with pytest.raises(Killed):
            other.resume(session_id, watch=watch)
    other.resume(session_id)
    assert all_of(other, session_id) == all_of(federation, calm)


@pytest.mark.slow
def test_killed_with_all_options_it_resumes_to_the_same_cohorts_and_bits(federation: Federation) -> None:
    """The same with real processes and a real end of the controller."""
    calm = federation.run(config_of(federation, "everything")).session_id
    ends = [number for number, event in enumerate(federation.events, 1) if isinstance(event, RoundFinished)]
    config = write_config(federation, config_of(federation, "everything"))
    killed(federation, "--run", config, "--kill-at", str((ends[0] + ends[1]) // 2))
    session_id = federation.store.list_sessions()[-1].session_id
    federation.resume(session_id)
    assert all_of(federation, session_id) == all_of(federation, calm)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.every_push("4")
def test_first_by_the_virtual_clock_count_and_for_one_that_fails_the_next(federation: Federation, workers: int) -> None:
    """Of five, the two virtual-fastest usable ones; whoever answers first here, nobody else is asked at all."""
    session = federation.run(
        clients=5,
        rounds=2,
        plan={"client-4": "exit3", "client-2": "slow"},
        sampler={"count": 2, "over_selection": 1.5},
        clock={"seconds": {f"client-{k}": 5.0 - k for k in range(5)}, "spread": 0.0, "jitter": 0.0},
        executor={"workers": workers},
    )
    for number in (1, 2):
        row = federation.store.get_round(session.session_id, number)
        assert len(row.cohort) == 5 and row.target == 2
        assert row.counted == ["client-2", "client-3"] and (row.num_ok, row.num_failed) == (2, 1)
        assert row.phases["virtual_time"] == 3.0 * number, "both rounds wait for client-2, which takes 3 s"
    tasks = {task.client_id for task in federation.store.list_tasks(session.session_id)}
    assert tasks == {"client-2", "client-3", "client-4"}


def test_client_that_drops_out_is_a_failure_that_costs_nothing_and_is_asked_again(
    federation: Federation, at_once: AtOnce
) -> None:
    config = federation.config(clients=6, sampler={"dropout": 0.5}, round={"required": 6})
    with pytest.raises(SessionFailed, match=r"usable updates, 6 are required[\s\S]*dropped out, by sampler.dropout"):
        federation.run(config)
    (session,) = federation.store.list_sessions()
    first = federation.store.list_tasks(session.session_id)
    assert {task.failure for task in first} == {None, "dropout"} and len(first) == 6
    for task in first:
        assert (task.folder is not None) == (task.bytes_down > 0) == (task.status == "ok")
    for _ in range(12):  # in each attempt, those who are asked again draw again
        try:
            federation.resume(session.session_id)
            break
        except SessionFailed:
            continue
    row = federation.store.get_round(session.session_id, 1)
    assert (row.num_ok, row.num_failed, row.status) == (6, 0, "finished")


def test_clients_held_out_only_validate_and_are_averaged_apart(federation: Federation, at_once: AtOnce) -> None:
    sections: dict[str, Any] = {
        "clients": {"count": 6, "groups": {"alle": ["*"]}},
        "sampler": {"held_out": ["client-[14]"]},
    }
    session = federation.run(rounds=2, validation={"every": 1}, **sections)
    trained = {f"client-{k}" for k in (0, 2, 3, 5)}
    for row in federation.store.list_rounds(session.session_id):
        assert set(row.cohort) == trained
        measured = federation.store.list_validations(session.session_id, round_number=row.round_number)
        assert len(measured) == 6
        for prefix, wanted in (("", trained), ("held_out/", {"client-1", "client-4"})):
            of = [one for one in measured if one.client_id in wanted]
            total = sum(one.weight * one.metrics["mean"] for one in of)  # type: ignore[index, call-overload, operator]
            assert row.metrics[f"{prefix}mean"] == pytest.approx(total / sum(one.weight for one in of))
    Asking.ask, Asking.seen = {"group": "alle"}, []
    federation.run(strategy={"name": "test_choosing:Asking"}, **sections)
    assert [set(seen) for seen in Asking.seen] == [trained, trained], "nor does a strategy get to know them"
    Asking.ask = {"clients": ("client-0", "client-1")}
    with pytest.raises(SessionFailed, match="clients of the request: unknown clients: client-1"):
        federation.run(strategy={"name": "test_choosing:Asking"}, **sections)


@dataclass(frozen=True)
class Asking:
    """Asks whom the test says, also when that is nobody, and keeps the model."""

    ask: ClassVar[dict[str, Any]] = {}
    seen: ClassVar[list[tuple[str, ...]]] = []
    traits = Traits(takes_empty_rounds=True)

    def init(self, seed_model: Any) -> State:
        return {"model": seed_model, "empty": 0}

    def step(self, state: State, ctx: StepContext) -> Step:
        replies = yield Request(payload=state["model"], **self.ask)
        self.seen.extend([tuple(client.client_id for client in ctx.clients), replies.asked])
        assert replies.missing == () and len(list(replies)) == len(replies.asked)
        return {**state, "empty": state["empty"] + (not replies.asked)}


def test_round_in_which_nobody_is_there_leaves_the_model_as_it_is(
    federation: Federation, tmp_path: Path, at_once: AtOnce
) -> None:
    trace = tmp_path / "Spur.csv"
    lines = [f"client-{k},{number},{number}" for k in range(3) for number in (1, 3)]
    trace.write_text("\n".join(["client,from_round,to_round", *lines, "client-0,4,4"]))
    sampler = {"availability": {"trace": str(trace)}}
    changes: dict[str, Any] = {"rounds": 4, "sampler": sampler, "round": {"required": 2}, "validation": {"every": 1}}
    session = federation.run(**changes)
    rows = federation.store.list_rounds(session.session_id)
    assert [len(row.cohort) for row in rows] == [3, 0, 3, 0], "one is too few where two are required"
    assert {row.status for row in rows} == {"finished"}
    digests = federation.digests(session.session_id)
    assert digests[1] == digests[2] != digests[3] == digests[4]
    validated = [row.round_number for row in federation.store.list_validations(session.session_id)]
    assert validated == [1, 1, 1, 3, 3, 3, 4]
    Asking.ask, Asking.seen = {}, []
    session = federation.run(strategy={"name": "test_choosing:Asking"}, **changes)
    state = federation.store.load_strategy_state(session.session_id)
    assert state is not None and state[1]["empty"] == 1, "a strategy that wants to takes its step all the same"
    assert [len(row.cohort) for row in federation.store.list_rounds(session.session_id)] == [3, 0, 3, 1]


def test_trace_in_virtual_seconds_goes_by_the_virtual_time_of_the_rounds(
    federation: Federation, tmp_path: Path, at_once: AtOnce
) -> None:
    trace = tmp_path / "Spur.json"
    rows = [{"client": "client-0", "from_s": 0, "to_s": 2}, {"client": "client-1", "from_s": 3.5, "to_s": 6}]
    trace.write_text(json.dumps([*rows, {"client": "client-2", "from_s": 9}]))
    sampler = {"availability": {"trace": str(trace)}}
    with pytest.raises(ConfigError, match="the trace is in virtual seconds, but the run has no virtual clock"):
        federation.run(sampler=sampler)
    clock = {"seconds": {"*": 1.5}, "spread": 0.0, "jitter": 0.0}
    session = federation.run(sampler=sampler, clock=clock, rounds=5)
    rounds = federation.store.list_rounds(session.session_id)
    assert [row.cohort for row in rounds] == [[f"client-{k}"] for k in (0, 0, 1, 1, 2)]
    # Where nobody is there, at 3 and at 6.5, the round waits for the first.
    assert [row.phases["virtual_time"] for row in rounds] == [1.5, 3.0, 5.0, 6.5, 10.5]


def test_round_waits_until_as_many_are_there_as_it_needs(
    federation: Federation, tmp_path: Path, at_once: AtOnce
) -> None:
    trace = tmp_path / "Spur.csv"
    changes: dict[str, Any] = {
        "clients": {"count": 3, "groups": {"a": ["client-0"], "b": ["client-[12]"]}},
        "clock": {"spread": 0.0, "jitter": 0.0},
        "round": {"required": 2},
        "rounds": 1,
    }
    trace.write_text("client,from_s\nclient-0,0\nclient-1,50\nclient-2,70\n")
    for size, start in ({}, 50.0), ({"groups": {"b": 2}}, 70.0):
        session = federation.run(**changes, sampler={"availability": {"trace": str(trace)}, **size})
        (row,) = federation.store.list_rounds(session.session_id)
        assert len(row.cohort) == 2 and start < row.phases["virtual_time"] < start + 10
    trace.write_text("client,from_s,to_s\nclient-0,0,9\nclient-1,50,60\nclient-2,70,\n")
    with pytest.raises(SessionFailed, match="clients that the sampler could ask are never available at the same time"):
        federation.run(**changes, sampler={"availability": {"trace": str(trace)}})


def test_sampler_goes_by_what_clients_said_last(federation: Federation, at_once: AtOnce) -> None:
    sampler = {"name": "power_of_choice", "count": 2, "candidates": 4, "metric": "loss"}
    session = federation.run(clients=4, rounds=3, sampler=sampler)
    cohorts = [row.cohort for row in federation.store.list_rounds(session.session_id)]
    assert sorted(cohorts[0] + cohorts[1]) == [f"client-{k}" for k in range(4)], "first those of whom nothing is known"
    updates = [update for n in (1, 2) for update in federation.store.list_updates(session.session_id, n)]
    losses = {update.task_id.split("/")[2]: update.metadata["loss"] for update in updates}
    assert set(cohorts[2]) == set(sorted(losses, key=losses.__getitem__)[2:])
    history = {row.client_id: row for row in federation.store.list_client_history(session.session_id)}
    assert {name: row.times_asked for name, row in history.items()} == {k: 1 + (k in cohorts[2]) for k in losses}
    with pytest.raises(ConfigError, match="it needs the metric 'los', which no client has reported") as caught:
        federation.run(clients=4, rounds=2, sampler={**sampler, "metric": "los"})
    assert "start a new run" in (caught.value.hint or "")
    failed = federation.store.list_rounds(federation.store.list_sessions()[-1].session_id)[-1]
    assert failed.status == "failed" and "'los'" in (failed.error or "")


def test_with_equal_weights_samplers_still_know_how_many_examples_there_are(
    federation: Federation, at_once: AtOnce
) -> None:
    session = federation.run(rounds=1, round={"weighting": "equal"}, validation={"every": 1})
    clients = federation.store.list_clients(session.session_id)
    assert [client.last_num_examples for client in clients] == [3.0, 8.0, 13.0], "what the replies said"
    updates = federation.store.list_updates(session.session_id, 1)
    assert {update.num_examples for update in updates} == {1.0}, "what they weigh"


def test_changed_file_of_a_sampler_is_warned_of_when_a_session_resumes(
    federation: Federation, tmp_path: Path, at_once: AtOnce, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "mein Zieher.py"
    source = """
from fedpkg.samplers import register_sampler

@register_sampler("first_ones")
class FirstOnes:
    def choose(self, candidates, number, rng):
        return range(number)
"""
    file.write_text(source)
    session = federation.run(sampler={"file": str(file), "count": 2}, rounds=1)
    federation.resume(session.session_id, rounds=2)
    assert "sampler.changed" not in caplog.text
    file.write_text(source + "# better\n")
    federation.resume(session.session_id, rounds=3)
    assert "sampler.changed" in caplog.text and "mein Zieher.py has changed" in caplog.text


def test_sampler_that_a_strategy_makes_no_use_of_is_warned_of(
    federation: Federation, at_once: AtOnce, caplog: pytest.LogCaptureFixture
) -> None:
    strategy = {"name": "fedbuff", "buffer": 2}
    federation.run(strategy=strategy, sampler={"held_out": 1}, rounds=1)
    assert "sampler.unused" not in caplog.text
    federation.run(strategy=strategy, sampler={"count": 2, "dropout": 0.5}, rounds=1)
    assert "have no effect on them: sampler.count, sampler.dropout" in caplog.text


def test_group_that_is_asked_beside_the_sample_is_not_asked_where_that_finds_nobody(
    federation: Federation, at_once: AtOnce
) -> None:
    session = federation.run(
        clients={"count": 4, "groups": {"server": ["client-0"]}},
        rounds=8,
        strategy={"name": "fltrust"},
        sampler={"name": "poisson", "fraction_train": 0.2},
    )
    cohorts = [row.cohort for row in federation.store.list_rounds(session.session_id)]
    assert [] in cohorts and any(len(cohort) > 1 for cohort in cohorts)
    assert all(cohort == [] or (cohort[0] == "client-0" and len(cohort) > 1) for cohort in cohorts)


def test_strategy_that_takes_empty_rounds_takes_those_in_which_everybody_failed(
    federation: Federation, at_once: AtOnce
) -> None:
    at_once.fails = frozenset(f"client-{k}@2" for k in range(3))
    session = federation.run(rounds=3, strategy={"name": "dp_fedavg", "noise_multiplier": 1.0})
    rows = federation.store.list_rounds(session.session_id)
    assert [row.num_ok for row in rows] == [3, 0, 3]
    assert len(set(federation.digests(session.session_id))) == 4, "the noise comes all the same"


class Own:
    """A sampler that does not say how it draws."""

    def choose(self, candidates: Candidates, number: int, rng: Any) -> Any:
        return rng.choice(len(candidates), size=number, replace=False)


class OwnOfScheme(Own):
    scheme = Scheme.WITHOUT_REPLACEMENT


def test_sampler_of_ones_own_serves_privacy_if_it_says_how_it_draws(federation: Federation, at_once: AtOnce) -> None:
    def epsilons(name: str) -> list[Any]:
        changes: dict[str, Any] = {"rounds": 2, "sampler": {"name": name, "count": 2}}
        session = federation.run(strategy={"name": "dp_fedavg", "noise_multiplier": 1.0}, **changes)
        return [row.strategy_metrics["epsilon"] for row in federation.store.list_rounds(session.session_id)]

    with pytest.raises(ConfigError, match="the choice of this sampler reveals what clients report") as caught:
        epsilons("test_choosing:Own")
    assert "scheme = Scheme.DATA_FREE" in (caught.value.hint or "")
    assert epsilons("test_choosing:OwnOfScheme") == epsilons("uniform")


HEEDLESS = """
from fedpkg.strategies import register_strategy
from fedpkg.strategies.base import Request

@register_strategy("heedless")
class Heedless:
    def init(self, seed_model):
        return {"model": seed_model}

    def step(self, state, ctx):
        x = state["model"]
        for client in ctx.clients[:2]:
            for reply in (yield Request(payload=x, clients=(client.client_id,), required=0)):
                x = reply.weights.clone()
        return {"model": x}
"""


@pytest.mark.parametrize("name", ["fedbuff", "fedasync", "a strategy of one's own"])
def test_round_of_no_usable_reply_stops_the_session_and_resumes_to_the_same_bits(
    federation: Federation, at_once: AtOnce, name: str
) -> None:
    strategy = {"name": name}
    if " " in name:
        file = federation.home.root.parent / "eigene Methode.py"
        file.write_text(HEEDLESS)
        strategy = {"file": str(file)}
    undisturbed = federation.run(clients=4, rounds=3, strategy=strategy)
    at_once.fails = frozenset(f"client-{k}@2" for k in range(4))
    with pytest.raises((SessionFailed, AggregationError), match="usable") as caught:
        federation.run(clients=4, rounds=3, strategy=strategy)
    assert "resume" in (caught.value.hint or "")
    failed = federation.store.list_sessions()[-1]
    assert [row.status for row in federation.store.list_rounds(failed.session_id)] == ["finished", "failed"]
    at_once.fails = frozenset()
    federation.resume(failed.session_id)
    assert federation.digests(failed.session_id) == federation.digests(undisturbed.session_id)


@pytest.mark.parametrize("strategy", [{"name": "fedbuff", "buffer": 1}, {"name": "fedasync"}])
def test_client_that_always_fails_is_passed_over_where_rounds_ask_one_at_a_time(
    federation: Federation, at_once: AtOnce, strategy: dict[str, Any]
) -> None:
    at_once.fails = frozenset(f"client-0@{number}" for number in range(1, 7))
    session = federation.run(clients=2, rounds=6, strategy=strategy, clock={"seconds": {"client-1": 3.0}, "spread": 0})
    assert session.status == "finished"
    assert [row.num_ok for row in federation.store.list_rounds(session.session_id)] == [1] * 6
    assert len(set(federation.digests(session.session_id))) == 7, "each round makes a step"


class Timed:
    """Its state has a time that is no number."""

    def init(self, seed_model: Any) -> State:
        return {"model": seed_model, "time": "noon"}

    def step(self, state: State, ctx: StepContext) -> Step:
        yield Request(payload=state["model"])
        return state


def test_time_in_a_strategys_state_must_be_a_number_where_there_is_a_clock(
    federation: Federation, at_once: AtOnce
) -> None:
    federation.run(strategy={"name": "test_choosing:Timed"}, rounds=1)
    with pytest.raises(SessionFailed, match="the state's 'time' is 'noon', not a number"):
        federation.run(strategy={"name": "test_choosing:Timed"}, rounds=1, clock={})


def test_what_no_round_can_do_is_found_before_anything_runs(federation: Federation, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("client,from_round\nclient-7,1\n")
    sampler: dict[str, Any]
    for sampler, words in (
        ({"availability": {"trace": str(tmp_path / "t.csv")}}, "t.csv, line 2: there is no client 'client-7'"),
        ({"groups": {"a": 1}}, "sampler.groups: there is no group 'a'"),
        ({"held_out": ["x*"]}, "sampler.held_out: no client matches 'x*'"),
        ({"count": 4}, "sampler.count is 4, but there are 3 clients to train"),
        ({"held_out": 1, "min_clients": 3}, "min_clients is 3, but there are 2 clients to train"),
    ):
        with pytest.raises(FedpkgError) as caught:
            federation.run(sampler=sampler)
        assert words in str(caught.value)
    assert federation.store.list_sessions() == []
