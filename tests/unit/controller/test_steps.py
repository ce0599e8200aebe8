"""Steps that ask as often as they like: what they get, what is on record of it, and the same bits after any kill."""

from __future__ import annotations

import importlib.util
import json
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from driven import drive, outcome_of, wait_until_gone, write_config
from federation import PACKAGES, Federation

from fedpkg.config import RunConfig
from fedpkg.controller.events import TaskEnded
from fedpkg.errors import AggregationError, ConfigError, FedpkgError, Interrupted, SessionFailed
from fedpkg.session.by_hand import Call, call_entry_point
from fedpkg.strategies import Traits
from fedpkg.strategies.base import Request, State, StepContext, StepResult
from fedpkg.types import ReplyKind
from fedpkg.weights.weights import Weights

QUADRATIC = PACKAGES / "quadratic"


def config_of(federation: Federation, **changes: object) -> RunConfig:
    sections = {
        "package": str(QUADRATIC),
        "clients": {"count": 4, "groups": {"odd": ["client-1", "client-3"], "even": ["client-[02]"]}},
        "rounds": 2,
        "sampler": {"fraction_train": 0.75},
        "arguments": {"all": {"drifts": True, "fails": "client-0@1,client-2@2,client-3@2"}},
        "strategy": {"name": "wandering_strategy:Wandering"},
    }
    return federation.config(**{**sections, **changes})


def all_of(federation: Federation, session_id: str) -> list[object]:
    """What must be the same however a session was run."""
    requests = [
        (
            *(row.request_id, row.number, row.entry_point, row.client_group, row.cohort, row.counted, row.status),
            *(row.num_ok, row.num_failed, row.bytes_down, row.bytes_up),
        )
        for row in federation.store.list_requests(session_id)
    ]
    state = federation.store.load_strategy_state(session_id)
    return [*outcome_of(federation, session_id), requests, json.dumps(state), federation.findings()]


def test_step_with_many_requests_is_on_record(federation: Federation) -> None:
    session = federation.run(config_of(federation))
    store, session_id = federation.store, session.session_id
    requests = store.list_requests(session_id, round_number=1)
    assert [row.number for row in requests] == list(range(1, len(requests) + 1))
    assert [row.request_id for row in requests][-2:] == ["steps", str(len(requests))]
    groups = {row.client_group: row.cohort for row in requests}
    assert groups.keys() - {None} <= {"odd", "even"} and len(groups) > 1
    assert requests[-1].cohort == ["client-0", "client-2"]
    tasks = [task for task in store.list_tasks(session_id, round_number=1) if task.request_id is not None]
    for row in requests:
        of_row = [task for task in tasks if task.request_id == row.request_id]
        assert row.num_ok == sum(task.status == "ok" for task in of_row) == len(row.counted or ())
        assert (row.bytes_down, row.bytes_up) == (
            sum(task.bytes_down for task in of_row),
            sum(task.bytes_up for task in of_row),
        )
        assert row.bytes_down > 0 and row.bytes_up > 0
    assert len({task.task_id for task in tasks}) == len(tasks) == sum(len(row.cohort) for row in requests)
    round_row = store.get_round(session_id, 1)
    assert (round_row.num_ok, round_row.num_failed) == (
        sum(row.num_ok for row in requests),
        sum(row.num_failed for row in requests),
    )
    folder = federation.home.session_folder(session_id)
    assert not list(folder.rglob(".payload*")) and not list(folder.glob("round-*/*/*.reply"))
    assert (folder / "round-1" / "client-1" / "train-2" / "task.json").exists()


@pytest.mark.soak
def test_failed_call_for_a_gradient_can_be_repeated_by_hand(federation: Federation, tmp_path: Path) -> None:
    arguments = {"all": {"drifts": True}, "gradient": {"fails": "client-4@1"}}
    strategy = {"name": "vrcs", "theta": 0.2, "p": 0.3, "q": 0.1}
    clients = {"count": 5, "groups": {"server": ["client-0"], "f": ["client-[12]"], "g": ["client-[34]"]}}
    session = federation.run(
        config_of(federation, clients=clients, rounds=1, strategy=strategy, arguments=arguments, sampler={})
    )
    task = federation.task(session, "client-4", "gradient")
    assert task.status == "failed" and task.folder is not None
    folder = federation.folder(task)
    record = json.loads((folder / "task.json").read_text())
    assert (record["reply"], record["parameters"]) == ("gradient", {"part": "g"})
    again = call_entry_point(Call(QUADRATIC, "gradient", tmp_path / "noch mal", model=folder / "in.npz", record=record))
    assert again.answer.status == "ok" and list(again.sets[""]) == ["x"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"clients": {"count": 4}}, "group 'odd'.*clients.groups has no group"),
        ({"clients": {"count": 4, "groups": {"odd": ["klient-1"]}}}, "no client id matches 'klient-1'; did you mean"),
        ({"package": str(PACKAGES / "drifting")}, "no entry point 'gradient'"),
    ],
)
def test_what_a_strategy_needs_is_looked_for_before_anything_runs(
    federation: Federation, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(FedpkgError, match=words):
        federation.run(config_of(federation, **changes))
    assert federation.store.list_sessions() == []


def test_the_servers_client_is_always_asked_and_never_among_those_sampled(federation: Federation) -> None:
    """Of six clients the sampler takes two fifths of the five others; the server's buffers are the model's."""
    config = config_of(
        federation,
        strategy={"name": "fltrust"},
        clients={"count": 6, "groups": {"server": ["client-3"]}},
        sampler={"fraction_train": 0.4},
        rounds=4,
        arguments={},
    )
    session = federation.run(config)
    requests = federation.store.list_requests(session.session_id)
    servers = [row for row in requests if row.client_group == "server"]
    sampled = [row for row in requests if row.client_group is None]
    assert [row.cohort for row in servers] == [["client-3"]] * 4
    assert all(len(row.cohort) == 2 and "client-3" not in row.cohort for row in sampled) and len(sampled) == 4
    assert len({tuple(row.cohort) for row in sampled}) > 1


def test_a_strategy_with_nobody_beside_the_server_is_refused(federation: Federation) -> None:
    clients = {"count": 1, "groups": {"server": ["client-0"]}}
    with pytest.raises(ConfigError, match="there are 0 clients"):
        federation.run(config_of(federation, strategy={"name": "fltrust"}, clients=clients, sampler={}))


def test_states_of_a_client_follow_each_other_within_a_round(federation: Federation) -> None:
    """Each of its calls finds what the one before it wrote, in whatever order requests were asked."""
    config = config_of(federation, arguments={"all": {"drifts": True}}, rounds=1, sampler={})
    session = federation.run(config)
    rows = federation.store.list_tasks(session.session_id, client_id="client-0")
    (client, *_) = federation.store.list_clients(session.session_id)
    kept = federation.home.session_folder(session.session_id) / "clients" / "client-0"
    assert [version.name for version in kept.iterdir()] == [client.state_version]
    calls = json.loads(next(kept.rglob("calls.json")).read_text())
    assert len(calls) == len(rows)


@pytest.mark.timeout(900)  # a new controller for each event that is taken
@pytest.mark.parametrize(
    "every", [pytest.param(17, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.soak)], ids=str
)
def test_killed_at_any_event_a_step_resumes_to_the_same_bits(federation: Federation, every: int) -> None:
    changes: dict[str, object] = {"rounds": 1, "validation": {"every": 0}}
    undisturbed = federation.run(config_of(federation, **changes))
    expected = all_of(federation, undisturbed.session_id)
    requests = expected[-3]
    assert any(len(row[5]) < len(row[4]) for row in requests), "some failed"  # type: ignore[attr-defined]
    assert len(requests) > 4  # type: ignore[arg-type]
    events = len(federation.events)
    config = write_config(federation, config_of(federation, **changes))
    for kill_at in range(1, events, every):
        process = drive(federation, "--run", config, "--kill-at", str(kill_at))
        process.communicate(timeout=200)
        assert process.returncode == -signal.SIGKILL, kill_at
        wait_until_gone(federation)
        session = federation.store.list_sessions()[-1]
        assert federation.resume(session.session_id).status == "finished"
        assert all_of(federation, session.session_id) == expected, f"killed at event {kill_at}"


@pytest.mark.slow
@pytest.mark.parametrize("executor", [{"workers": 1}, {"workers": 4}, {"name": "resident"}, {"name": "process"}])
@pytest.mark.every_push("executor2")
def test_executors_and_workers_do_not_change_a_bit_of_a_step(
    federation: Federation, executor: dict[str, object]
) -> None:
    one = federation.run(config_of(federation)).session_id
    other = federation.run(config_of(federation, executor=executor)).session_id
    assert all_of(federation, one) == all_of(federation, other)


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "number"), [("before", 2), ("after", 3), ("before", 9), ("after", 16)])
@pytest.mark.every_push("before-9")
def test_killed_as_a_request_is_recorded_a_step_resumes_to_the_same_bits(
    federation: Federation, moment: str, number: int
) -> None:
    expected = all_of(federation, federation.run(config_of(federation)).session_id)
    config = write_config(federation, config_of(federation))
    process = drive(federation, "--run", config, "--kill-at-step", f"{moment}:record_requests:{number}")
    process.communicate(timeout=200)
    assert process.returncode == -signal.SIGKILL
    session = federation.store.list_sessions()[-1]
    federation.resume(session.session_id)
    assert all_of(federation, session.session_id) == expected


def test_request_to_which_too_few_answer_is_asked_again_and_those_before_are_not(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(federation, round={"required": 2}, rounds=1, arguments={"all": {"drifts": True}})
    monkeypatch.setenv("QUADRATIC_FAILS", "client-0@1")  # when it is called again
    with pytest.raises(SessionFailed, match=r"round 1, request \d+ \(validate\): 1 usable updates, 2 are required"):
        federation.run(config)
    store = federation.store
    session_id = store.list_sessions()[-1].session_id
    *before, train, steps, validate = store.list_requests(session_id)
    assert {row.status for row in before} == {"answered"}
    assert [row.status for row in (train, steps, validate)] == ["failed"] * 3, "they were asked at once"
    assert store.get_round(session_id, 1).status == "failed"
    tasks = {task.task_id for task in store.list_tasks(session_id)}
    monkeypatch.delenv("QUADRATIC_FAILS")
    federation.resume(session_id)
    assert store.list_requests(session_id)[: len(before)] == before
    again = [task for task in store.list_tasks(session_id, round_number=1) if task.task_id not in tasks]
    assert {task.client_id for task in again if task.request_id is not None} == {"client-0"}
    assert {row.status for row in store.list_requests(session_id)} == {"answered"}


def test_files_of_former_states_go_with_the_round_that_replaces_them(federation: Federation) -> None:
    session = federation.run(config_of(federation, strategy={"name": "scaffold"}, rounds=4, arguments={}))
    store = federation.store
    named = {model.digest for model in store.list_models(session.session_id)} | store.state_digests()
    assert {path.name[:64] for path in federation.home.models.glob("??/*")} == named
    assert len(named) == 5 + 2, "models of all rounds, and c of the last two"


class Astray:
    """Yields, or returns, what no step does; as its state says."""

    traits = Traits(entry_points=())

    def __init__(self, way: str = "") -> None:
        self.way = way

    def init(self, seed_model: Weights) -> State:
        return {"model": seed_model}

    def step(self, state: State, ctx: StepContext) -> Any:
        x = state["model"]
        if self.way == "yields":
            yield "train"
        if self.way == "twice":
            yield [Request("once", payload=x), Request("once", payload=x)]
        if self.way == "nobody":
            yield Request(payload=x, clients=("client-9",))
        if self.way == "group":
            yield Request(payload=x, group="nirgends")
        if self.way == "one id":
            yield Request(payload=x, clients="client-0")  # type: ignore[arg-type]
        if self.way == "numbers":
            yield Request(payload={"x": 3})  # type: ignore[dict-item]
        if self.way == "waits":
            yield Request(payload=x, clients=("client-0",), wait=1, required=2)
        if self.way == "tensors":
            yield Request(payload=x, parameters={"x": x["x"]})
        if self.way == "another":
            return {"model": x.to(dtype=torch.float32)}
        if self.way == "a set":
            return {"model": x, "seen": {1}}
        if self.way == "metrics":
            return StepResult({"model": x}, {"x": x["x"]})  # type: ignore[dict-item]
        if self.way == "raises":
            raise KeyError("Tippfehler")
        if self.way == "exits":
            sys.exit(3)
        return {"model": (0.0 * x) / 0.0} if self.way == "nan" else None


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("", "a step returns its next state, .* not a NoneType"),
        ("yields", "a step must yield requests, not a str"),
        ("twice", "request once: the strategy has used this request id before"),
        ("nobody", "clients of the request: unknown clients: client-9"),
        ("group", "there is no group 'nirgends'"),
        ("one id", r"clients of a request must be several ids: \('client-0',\)"),
        ("numbers", "a payload must be Weights, several named Weights, or Records"),
        ("waits", "the strategy waits for 1 replies, but requires 2"),
        ("tensors", "parameters must be JSON: .*Tensor"),
        ("another", "round 1: the next model does not fit the global model: tensor 'x' has dtype float32"),
        ("metrics", "a strategy's state and metrics are data; they cannot contain a Tensor"),
        ("a set", "a strategy's state and metrics are data; they cannot contain a set"),
        ("raises", r"round 1: KeyError: 'Tippfehler'\n.*test_steps.py, line \d+, in step"),
        ("exits", r"round 1: SystemExit: 3\n.*test_steps.py, line \d+, in step"),
    ],
)
def test_step_that_goes_astray_fails_with_what_it_did(federation: Federation, way: str, words: str) -> None:
    with pytest.raises(SessionFailed, match=words):
        federation.run(config_of(federation, strategy={"name": "test_steps:Astray", "way": way}))
    session = federation.store.list_sessions()[-1]
    assert session.status == "failed"
    assert [row.status for row in federation.store.list_rounds(session.session_id)] == ["failed"]


@pytest.mark.parametrize(
    ("name", "words"), [("Plain", "the step is not a generator"), ("Bare", "begin with a state, .* a Weights")]
)
def test_strategies_that_are_none_are_told_so(federation: Federation, name: str, words: str) -> None:
    with pytest.raises(SessionFailed, match=words):
        federation.run(config_of(federation, strategy={"name": f"test_steps:{name}"}))


class Plain(Astray):
    def step(self, state: State, ctx: StepContext) -> Any:
        return state


class Bare(Astray):
    def init(self, seed_model: Weights) -> Any:
        return seed_model


class Fickle(Astray):
    """Asks something else after every change of its class: a step that depends on more than its state."""

    entry_point = "train"

    def step(self, state: State, ctx: StepContext) -> Any:
        for reply in (yield Request(payload=state["model"], entry_point=self.entry_point)):
            state = {"model": reply.weights.clone()}
        yield Request(payload=state["model"], entry_point="validate", reply_kind=ReplyKind.METRICS)
        return state


def test_no_round_ends_at_a_model_that_is_not_finite(federation: Federation) -> None:
    with pytest.raises(AggregationError, match="'x' of the next global model is not finite"):
        federation.run(config_of(federation, strategy={"name": "test_steps:Astray", "way": "nan"}))
    session = federation.store.list_sessions()[-1]
    assert session.status == "failed" and len(federation.digests(session.session_id)) == 1, "the seed alone"


def test_step_that_asks_otherwise_when_it_is_repeated_is_refused(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(event: object) -> None:
        if isinstance(event, TaskEnded) and event.order.entry_point == "validate":
            raise KeyboardInterrupt

    config = config_of(federation, strategy={"name": "test_steps:Fickle"}, rounds=1, arguments={})
    with pytest.raises(Interrupted):
        federation.run(config, watch=stop)
    session_id = federation.store.list_sessions()[-1].session_id
    monkeypatch.setattr(Fickle, "entry_point", "prox")
    with pytest.raises(SessionFailed, match=r"request differs from the one before .*\(entry_point: train, now prox\)"):
        federation.resume(session_id)
    monkeypatch.undo()
    assert federation.resume(session_id).status == "finished"


@pytest.mark.soak
@pytest.mark.slow
def test_vrcs_arrives_at_the_solution_with_clients_of_its_own(federation: Federation) -> None:
    """Real tasks, in float64: the same method as on paper (tests/unit/strategies/test_variance_reduced_methods.py)."""
    spec = importlib.util.spec_from_file_location("quadratic_entrypoint", QUADRATIC / "entrypoint.py")
    assert spec is not None and spec.loader is not None
    client = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(client)
    session = federation.run(
        package=str(QUADRATIC),
        clients={"count": 5, "groups": {"server": ["client-0"], "f": ["client-[12]"], "g": ["client-[34]"]}},
        rounds=10,
        strategy={"name": "vrcs", "theta": 0.2, "p": 0.4, "q": 0.25},
        executor={"name": "resident", "workers": 2},
    )
    losses = [client.problem(who) for who in (1, 2, 3, 4)]
    solution = np.linalg.solve(sum(a for a, _ in losses) / 2, sum(b for _, b in losses) / 2)
    start, end = (federation.model(f"{session.session_id}.{number}")["x"].numpy() for number in (0, 10))
    assert np.linalg.norm(end - solution) < 1e-4 * np.linalg.norm(start - solution)
    rows = federation.store.list_requests(session.session_id)
    calls = Counter(row.client_group for row in rows if row.entry_point == "gradient")
    assert 20 < calls["f"] < calls["g"] and calls["server"] == calls["f"] + calls["g"]
