"""Measurements beside validation: before and after training, and on the server's data. They never change a model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from at_once import AtOnce
from federation import DRIFTING, Federation

from fedpkg.cli.main import run_command
from fedpkg.controller.events import Event, TaskEnded
from fedpkg.errors import ConfigError, DataError, Interrupted, SpecError
from fedpkg.stores.base import SessionRow

EVALUATION: dict[str, Any] = {
    "clients": 4,
    "rounds": 2,
    "sampler": {"fraction_train": 0.5},
    "validation": {"every": 1},
}


def everything(server: Path) -> dict[str, Any]:
    return {"before_training": True, "after_training": True, "server": {"data": str(server)}}


@pytest.fixture
def server(tmp_path: Path) -> Path:
    path = tmp_path / "Daten des Servers ü"
    path.mkdir()
    return path


def mean_of(federation: Federation, session: SessionRow, number: int) -> float:
    return float(federation.model(f"{session.session_id}.{number}")["w"].double().mean())


def outcome(federation: Federation, session_id: str) -> list[Any]:
    rounds = federation.store.list_rounds(session_id)
    rows = federation.store.list_metric_rows(session_id)
    validations = federation.store.list_validations(session_id, phase=None)
    return [
        federation.digests(session_id),
        [(row.cohort, row.counted, row.metrics, row.averages) for row in rounds],
        [{**asdict(row), "session_id": ""} for row in rows],
        sorted((row.round_number, row.phase, row.client_id, str(row.metrics), row.weight) for row in validations),
    ]


def test_clients_of_a_round_measure_its_model_before_and_their_own_updates_after_training(
    federation: Federation, at_once: AtOnce
) -> None:
    evaluation = {"before_training": True, "after_training": True}
    session = federation.run(**EVALUATION, evaluation=evaluation, keep={"updates": True})
    for row in federation.store.list_rounds(session.session_id):
        found = federation.store.list_validations(session.session_id, round_number=row.round_number, phase=None)
        before = {one.client_id: one.metrics["mean"] for one in found if one.phase == "before_training"}
        after = {one.client_id: one.metrics["mean"] for one in found if one.phase == "after_training"}
        assert set(before) == set(after) == set(row.cohort)
        parent = mean_of(federation, session, row.round_number - 1)
        tasks = {
            task.client_id: task
            for task in federation.store.list_tasks(session.session_id, round_number=row.round_number)
            if task.entry_point == "train"
        }
        updates = {one.task_id: one for one in federation.store.list_updates(session.session_id, row.round_number)}
        for client_id, measured in before.items():
            who = int(client_id.removeprefix("client-"))
            assert measured == pytest.approx(parent + who, abs=1e-5)
            update = np.load(federation.home.root / updates[tasks[client_id].task_id].path)["w"]
            assert after[client_id] == pytest.approx(float(update.mean()) + who, abs=1e-5)
        rows = federation.store.list_metric_rows(session.session_id, round_number=row.round_number)
        means = {one.phase: one.mean for one in rows if one.metric == "mean"}
        assert means["before_training"] == pytest.approx(np.mean(list(before.values())))
        assert means["after_training"] == pytest.approx(np.mean(list(after.values())))


def test_model_is_measured_on_the_data_of_the_server(
    federation: Federation, at_once: AtOnce, server: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = federation.run(**EVALUATION, evaluation={"server": {"data": str(server)}})
    for row in federation.store.list_rounds(session.session_id):
        expected = mean_of(federation, session, row.round_number) + 4  # its place is after the clients
        assert row.metrics["server/mean"] == pytest.approx(expected, abs=1e-5)
    (task,) = federation.store.list_tasks(session.session_id, round_number=2, client_id=".server")
    assert task.entry_point == "validate" and task.status == "ok"
    assert ".server" not in {row.client_id for row in federation.store.list_client_history(session.session_id)}
    assert ".server" not in {row.client_id for row in federation.store.list_validations(session.session_id)}
    home = ["--home", str(federation.home.root)]
    assert run_command(["validation", "list", "--client", "client-0", *home]) == 0
    assert run_command(["validation", "list", *home]) == 0
    assert ".server" in capsys.readouterr().out
    assert run_command(["model", "list", "--best", "server/mean", *home]) == 0


def test_measurements_do_not_change_a_bit_of_what_a_session_computes(
    federation: Federation, at_once: AtOnce, server: Path
) -> None:
    plain = federation.run(**EVALUATION)
    session = federation.run(**EVALUATION, evaluation=everything(server))
    assert federation.digests(plain.session_id) == federation.digests(session.session_id)
    for row, other in zip(
        federation.store.list_rounds(plain.session_id), federation.store.list_rounds(session.session_id), strict=True
    ):
        measured = {name: value for name, value in other.metrics.items() if not name.startswith("server/")}
        assert (row.metrics, row.train_metrics, row.cohort) == (measured, other.train_metrics, other.cohort)


def test_session_interrupted_at_any_task_has_the_same_measurements(
    federation: Federation, at_once: AtOnce, server: Path
) -> None:
    changes = {**EVALUATION, "evaluation": everything(server)}
    expected = outcome(federation, federation.run(**changes).session_id)
    number = sum(isinstance(event, TaskEnded) for event in federation.events)
    assert number == 2 * (2 + 2 + 2 + 4 + 1)
    for last in range(1, number + 1, 3):
        seen = 0

        def interrupt(event: Event, last: int = last) -> None:
            nonlocal seen
            seen += isinstance(event, TaskEnded)
            if seen == last and isinstance(event, TaskEnded):
                raise KeyboardInterrupt

        with pytest.raises(Interrupted):
            federation.run(watch=interrupt, **changes)
        session = federation.store.list_sessions()[-1]
        federation.resume(session.session_id)
        assert outcome(federation, session.session_id) == expected, f"interrupted at task {last}"


@pytest.mark.slow
def test_clients_with_states_are_measured_beside_them_in_real_processes(federation: Federation, server: Path) -> None:
    changes = {
        "package": str(DRIFTING),
        "clients": 3,
        "rounds": 2,
        "validation": {"every": 1},
        "arguments": {"train": {"fails": "client-1@2"}},
    }
    plain = federation.run(**changes)
    session = federation.run(**changes, evaluation=everything(server))
    assert federation.digests(plain.session_id) == federation.digests(session.session_id)
    phases = {row.phase for row in federation.store.list_metric_rows(session.session_id)}
    assert phases == {"train", "validate", "server", "before_training", "after_training"}
    found = federation.store.list_validations(session.session_id, round_number=2, phase="after_training")
    assert {row.client_id for row in found} == {"client-0", "client-2"}, "of client-1 there is no update"
    assert [one.place for one in federation.findings()] == []


@pytest.mark.slow
def test_failed_measurement_is_recorded_and_stops_nothing(federation: Federation, server: Path) -> None:
    plan = {"validate": {"plan": '{"client-1": "exit3", ".server": "exit3"}'}}
    session = federation.run(
        clients=3, rounds=1, validation={"every": 1}, arguments=plan, evaluation=everything(server)
    )
    assert session.status == "finished"
    found = federation.store.list_validations(session.session_id, phase=None)
    assert {row.client_id for row in found if row.phase == "before_training"} == {"client-0", "client-2"}
    failed = federation.store.list_tasks(session.session_id, status="failed")
    assert {task.client_id for task in failed} == {"client-1", ".server"}
    assert not [name for name in federation.store.get_round(session.session_id, 1).metrics if name.startswith("server")]


def test_measurement_that_cannot_take_place_is_refused_before_the_run(
    federation: Federation, at_once: AtOnce, server: Path
) -> None:
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"evaluation": {"server": {"data": str(server / "nothing")}}}, DataError, "nothing does not exist"),
        ({"evaluation": {"server": {"data": str(server), "entry_point": "valdiate"}}}, SpecError, "valdiate"),
        (
            {"evaluation": {"server": {"data": str(server)}}, "validation": {"every": 0}},
            ConfigError,
            "validation.every is 0",
        ),
    ]
    for changes, kind, problem in cases:
        with pytest.raises(kind, match=problem):
            federation.run(**{**EVALUATION, **changes})
