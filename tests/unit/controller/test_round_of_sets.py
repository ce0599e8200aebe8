"""Rounds whose tasks get, and whose clients send, several named weight sets; and payloads that are not the model."""

from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from driven import drive, outcome_of, wait_until_gone, write_config
from federation import PACKAGES, Federation

from fedpkg.config import RunConfig
from fedpkg.controller.events import Event, SessionStarted
from fedpkg.errors import SessionFailed, StoreError
from fedpkg.session.by_hand import Call, call_entry_point
from fedpkg.stores.base import SessionRow
from fedpkg.strategies.base import Request, State
from fedpkg.strategies.pipeline import Pipeline
from fedpkg.types import ReplyKind

CONTROL = PACKAGES / "control-variates"


def config_of(federation: Federation, **changes: object) -> RunConfig:
    sections = {
        "package": str(CONTROL),
        "clients": 4,
        "rounds": 3,
        "sampler": {"fraction_train": 0.75},
        "strategy": {"name": "sets_strategy:WithControl"},
        "arguments": {"train": {"fails": "client-1@2,client-2@3,client-0@1"}},
    }
    return federation.config(**{**sections, **changes})


def files_of(federation: Federation, session: SessionRow, pattern: str) -> list[Path]:
    return sorted(federation.home.session_folder(session.session_id).rglob(pattern))


def test_sets_go_out_and_come_back(federation: Federation) -> None:
    session = federation.run(config_of(federation, clients=2, rounds=2, sampler={}, arguments={}))
    first, second = (federation.model(f"{session.session_id}.{number}") for number in (1, 2))
    assert list(second) == ["w", "steps", "v"]
    assert second["steps"] == 2
    assert not torch.equal(first["w"], second["w"])
    state = federation.store.load_strategy_state(session.session_id)
    assert state is not None and set(state[1]) == {"model", "control", "step"}
    assert files_of(federation, session, ".payload*") == [], "what was staged is gone with the round"


def test_failed_task_of_sets_can_be_repeated_by_hand(federation: Federation, tmp_path: Path) -> None:
    session = federation.run(config_of(federation, clients=2, rounds=1, arguments={"train": {"fails": "client-1@1"}}))
    task = federation.task(session, "client-1")
    assert task.status == "failed" and task.folder is not None
    folder = federation.folder(task)
    record = json.loads((folder / "task.json").read_text())
    assert (record["input_sets"], record["reply_sets"]) == (["x", "control"], ["x", "control"])
    called = call_entry_point(Call(CONTROL, "train", tmp_path / "noch mal", model=folder / "in.npz", record=record))
    assert (called.answer.status, list(called.sets)) == ("ok", ["x", "control"]), called.answer


def test_more_sets_than_stay_open_are_opened_again(federation: Federation) -> None:
    config = config_of(federation, clients=18, rounds=1, sampler={}, arguments={})
    undisturbed = federation.run(config)
    process = drive(federation, "--run", write_config(federation, config), "--kill-at-step", "before:record_requests:2")
    process.communicate(timeout=200)
    assert process.returncode == -signal.SIGKILL
    session = federation.store.list_sessions()[-1]
    assert files_of(federation, session, ".payload*") != []
    federation.resume(session.session_id)  # all 18 replies are on record: they are there before the fold begins
    assert {task.attempt for task in federation.store.list_tasks(session.session_id)} == {1}
    assert outcome_of(federation, session.session_id) == outcome_of(federation, undisturbed.session_id)
    assert files_of(federation, session, ".payload*") == []


@pytest.mark.timeout(400)  # a new controller for each event: half a minute, on a quiet machine
@pytest.mark.parametrize(
    "every", [pytest.param(8, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.soak)], ids=str
)
@pytest.mark.parametrize(("keys", "first"), [("names", 1), ("positions", 2)])
@pytest.mark.every_push("positions")
def test_killed_at_any_event_a_session_of_sets_resumes_to_the_same_bits(
    federation: Federation, keys: str, first: int, every: int
) -> None:
    """With names and with positions, every other event is taken; together they take all."""
    arguments = {"build": {"keys": keys}, "train": {"fails": "client-1@2,client-2@3,client-0@1"}}
    undisturbed = federation.run(config_of(federation, rounds=2, arguments=arguments))
    expected = outcome_of(federation, undisturbed.session_id)
    state = federation.store.load_strategy_state(undisturbed.session_id)
    assert any(row[3] for row in expected[1]), "some client failed"  # type: ignore[attr-defined]
    events = len(federation.events)
    config = write_config(federation, config_of(federation, rounds=2, arguments=arguments))
    for kill_at in range(first, events, every):
        process = drive(federation, "--run", config, "--kill-at", str(kill_at))
        process.communicate(timeout=200)
        assert process.returncode == -signal.SIGKILL, kill_at
        wait_until_gone(federation)
        session = federation.store.list_sessions()[-1]
        assert federation.resume(session.session_id).status == "finished"
        assert outcome_of(federation, session.session_id) == expected, f"killed at event {kill_at}"
        assert federation.store.load_strategy_state(session.session_id) == state, "the control variate is the same, too"


def test_state_of_a_model_with_positions_keeps_its_names(federation: Federation) -> None:
    changes: dict[str, object] = {"clients": 2, "sampler": {}, "arguments": {"build": {"keys": "positions"}}}
    session = federation.run(config_of(federation, **changes, rounds=1))
    uninterrupted = federation.run(config_of(federation, **changes, rounds=2))
    assert list(federation.model(f"{session.session_id}.1")) == ["0", "1", "2"]
    federation.resume(session.session_id, rounds=2)
    assert federation.digests(session.session_id) == federation.digests(uninterrupted.session_id)


class Elsewhere(Pipeline):
    """FedAvg that has its clients begin at another point than the global model."""

    def ask(self, state: State, rng: np.random.Generator) -> tuple[State, list[Request]]:
        state, (request,) = super().ask(state, rng)
        return state, [dataclasses.replace(request, payload=100.0 * state["model"])]


def test_payload_that_is_not_the_global_model_is_what_clients_get(federation: Federation) -> None:
    session = federation.run(clients=2, strategy={"name": "test_round_of_sets:Elsewhere"})
    seed, model = (federation.model(f"{session.session_id}.{number}") for number in (0, 1))
    torch.testing.assert_close(model["w"], 100 * seed["w"] + 1)


class AskingFor(Pipeline):
    kind = ReplyKind.RESULT

    def ask(self, state: State, rng: np.random.Generator) -> tuple[State, list[Request]]:
        state, (request,) = super().ask(state, rng)
        return state, [dataclasses.replace(request, reply_kind=self.kind)]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (ReplyKind.RESULT, "must ask for one of update, sets, metrics, records, not result"),
        (ReplyKind.SETS, "asks for sets, but names none"),
    ],
)
def test_request_that_no_reply_can_answer_is_refused(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, kind: ReplyKind, words: str
) -> None:
    monkeypatch.setattr(AskingFor, "kind", kind)
    with pytest.raises(SessionFailed, match=words):
        federation.run(clients=1, strategy={"name": "test_round_of_sets:AskingFor"})


def test_payload_that_cannot_be_written_stops_a_session_that_resumes(federation: Federation) -> None:
    changes: dict[str, object] = {"clients": 2, "rounds": 1, "sampler": {}, "arguments": {}}
    undisturbed = federation.run(config_of(federation, **changes))

    def stand_in_the_way(event: Event) -> None:
        if isinstance(event, SessionStarted):
            federation.home.session_folder(event.session.session_id).joinpath("round-1").write_text("")

    with pytest.raises(StoreError, match=r"\.payload-1-1\.npz: cannot be written") as caught:
        federation.run(config_of(federation, **changes), watch=stand_in_the_way)
    assert "session resume" in (caught.value.hint or "")
    session = federation.store.list_sessions()[-1]
    federation.home.session_folder(session.session_id).joinpath("round-1").unlink()
    assert federation.resume(session.session_id).status == "finished"
    assert federation.digests(session.session_id) == federation.digests(undisturbed.session_id)
