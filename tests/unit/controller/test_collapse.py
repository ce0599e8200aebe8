"""A metric that collapses within a round is told once; ordinary noise never is."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
from at_once import AtOnce
from federation import Federation

from fedpkg.controller.collapse import CollapseWatch
from fedpkg.stores.base import RoundRow

NAN = math.nan


def warnings_of(
    caplog: pytest.LogCaptureFixture, name: str, values: list[float], *, updates: int = 3, validations: int = 3
) -> list[str]:
    """What is told of a session whose rounds have these values of a metric; NaN: finite for no client."""
    caplog.clear()
    watch = CollapseWatch([], hint="this")
    for number, value in enumerate(values, 1):
        watch.look(row_of(number, {name: value}, updates=updates, validations=validations))
    return [record.getMessage() for record in caplog.records]


def row_of(number: int, metrics: dict[str, float], *, updates: int = 3, validations: int = 3) -> RoundRow:
    bad = {name: [0, validations] for name, value in metrics.items() if not math.isfinite(value)}
    return RoundRow(
        session_id="s",
        round_number=number,
        cohort=[],
        target=0,
        started_at=0.0,
        counted=[f"client-{i}" for i in range(updates)],
        metrics={name: None if name in bad else value for name, value in metrics.items()},
        averages={"validate": {"num_clients": validations, "weight_source": "reply", "finite": bad}},
    )


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("accuracy", [0.811, 0.106, 0.106, 0.944, 0.106]),  # BatchNorm of a model by positions under fedavgm
        ("test_acc", [0.6, 0.95, 0.1]),
        ("AUC", [0.9, 0.92, 0.0]),
        ("f1", [0.5, 0.7, NAN, 0.7]),
        ("loss", [1.6, 0.4, 40.0]),
        ("val_loss", [1.6, NAN, NAN]),
        ("test_perplexity", [80.0, 30.0, 1e9]),
    ],
)
def test_collapse_is_told_once(caplog: pytest.LogCaptureFixture, name: str, values: list[float]) -> None:
    (told,) = warnings_of(caplog, name, values)
    assert told.startswith("metric.collapsed round=") and f" metric={name} before=" in told and "check this" in told


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("accuracy", [0.9, 0.6, 0.3, 0.1]),  # not in one round
        ("accuracy", [0.083, 0.535, 0.326, 0.056, 0.778, 0.38, 0.939, 0.556, 0.472, 0.932, 0.514]),  # see collapse.py
        ("accuracy", [0.4, 0.1, 0.35, 0.12]),  # the noise of a model that has hardly learnt
        ("accuracy", [90.0, 10.0]),  # not between 0 and 1: who knows what it is
        ("steps", [0.9, 0.1]),
        ("mapping", [0.9, 0.1]),
        ("weight_norm", [1.0, 1e9]),
        ("loss", [2.3, 0.001, 0.9, 0.002, 1.5]),  # below the beginning
        ("loss", [-1.0, 20.0]),
        ("accuracy", [NAN, 0.9, 0.8]),
        ("held_out/accuracy", [0.9, 0.1]),
    ],
)
def test_what_is_no_collapse_is_not_told(caplog: pytest.LogCaptureFixture, name: str, values: list[float]) -> None:
    assert warnings_of(caplog, name, values) == []


def test_models_of_few_clients_and_metrics_of_one_are_not_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    assert warnings_of(caplog, "accuracy", [0.9, 0.1], updates=2) == []
    assert warnings_of(caplog, "accuracy", [0.9, 0.1], validations=1) == []


def test_noise_of_small_cohorts_is_no_collapse(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):  # three clients validate on 20 examples each, others in each round; the model learns
        right = rng.binomial(20, np.linspace(0.1, 0.9, 30)[:, None] * rng.uniform(0.7, 1.0, (30, 3)))
        assert warnings_of(caplog, "accuracy", (right.mean(1) / 20).tolist()) == []
        losses = np.linspace(2.3, 0.05, 30) * rng.lognormal(0, 0.7, (30, 3)).mean(1)
        assert warnings_of(caplog, "loss", losses.tolist()) == []


def test_session_tells_it_once_also_when_it_is_resumed(
    federation: Federation, at_once: AtOnce, caplog: pytest.LogCaptureFixture
) -> None:
    def told() -> int:
        return sum("metric.collapsed" in record.getMessage() for record in caplog.records)

    def measure(accuracy: float) -> None:
        at_once.validates = {f"client-{i}": {"accuracy": accuracy, "num_examples": 9} for i in range(3)}

    with caplog.at_level(logging.WARNING, "fedpkg.controller"):
        measure(0.9)
        session = federation.run(rounds=2, validation={"every": 1})
        measure(0.1)
        federation.resume(session.session_id, rounds=3)
        assert told() == 1
        measure(0.9)
        federation.resume(session.session_id, rounds=4)
        measure(0.1)
        federation.resume(session.session_id, rounds=5)
    assert told() == 1
