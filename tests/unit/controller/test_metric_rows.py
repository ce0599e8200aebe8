"""Aggregates of metrics over clients: their numbers, their rows, and what readers get for older rounds."""

from __future__ import annotations

import dataclasses
import json
import math
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from at_once import AtOnce
from federation import Federation
from hypothesis import given
from hypothesis import strategies as st

from fedpkg.cli.main import run_command
from fedpkg.controller.events import RoundFinished
from fedpkg.controller.metric_rows import MAX_METRICS, all_metric_rows, former_rows, metric_rows
from fedpkg.stores.base import MetricRow, RoundRow
from fedpkg.stores.metric_rows import is_lower_better
from fedpkg.types import Json

NAN, INF = float("nan"), float("inf")


def rows_of(*metrics: Json, weights: list[float] | None = None) -> dict[str, MetricRow]:
    weights = weights or [1.0] * len(metrics)
    replies = [(one, (weight, "reply")) for one, weight in zip(metrics, weights, strict=True)]
    found = metric_rows(replies, session_id="s", round_number=3, phase="validate")  # type: ignore[arg-type]
    return {row.metric: row for row in found}


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_aggregates_are_those_of_numpy(values: list[float]) -> None:
    row = rows_of(*[{"score": value} for value in values])["score"]
    tenth = math.ceil(len(values) / 10)
    close = {"rtol": 1e-9, "atol": 1e-9 * max(map(abs, values))}
    np.testing.assert_allclose([row.mean, row.std], [np.mean(values), np.std(values)], rtol=1e-9, atol=1e-6)
    assert (row.min, row.max, row.num_clients) == (min(values), max(values), len(values))
    np.testing.assert_allclose(row.deciles, np.quantile(values, np.arange(1, 10) / 10), **close)
    np.testing.assert_allclose(row.worst_tenth, np.mean(sorted(values)[:tenth]), **close)
    np.testing.assert_allclose(row.best_tenth, np.mean(sorted(values)[-tenth:]), **close)


@given(st.permutations([{"loss": 0.1 * i, "acc": math.sin(i)} for i in range(13)]))
def test_order_of_the_clients_does_not_change_a_bit_of_the_unweighted_aggregates(metrics: list[Json]) -> None:
    expected = rows_of(*[{"loss": 0.1 * i, "acc": math.sin(i)} for i in range(13)])
    for name, row in rows_of(*metrics).items():
        assert dataclasses.replace(row, weighted_mean=None) == dataclasses.replace(expected[name], weighted_mean=None)


def test_worst_tenth_of_a_loss_are_its_highest_values() -> None:
    rows = rows_of(*[{"val_loss": float(i), "accuracy": float(i)} for i in range(20)])
    assert (rows["val_loss"].worst_tenth, rows["val_loss"].best_tenth) == (18.5, 0.5)
    assert (rows["accuracy"].worst_tenth, rows["accuracy"].best_tenth) == (0.5, 18.5)
    assert [is_lower_better(name) for name in ("test_mse", "Error", "glossary", "f1")] == [True, True, False, False]


def test_weights_count_in_the_weighted_mean_alone() -> None:
    row = rows_of({"a": 1.0}, {"a": 4.0}, weights=[3.0, 1.0])["a"]
    assert (row.weighted_mean, row.mean, row.std) == (1.75, 2.5, 1.5)


def test_values_that_are_no_finite_numbers_are_left_out() -> None:
    rows = rows_of(
        {"a": NAN, "b": True, "c": "text", "d": {"e": 1}, "g": INF, "h": 10**400, "num_examples": 7}, {"a": 2}, [1]
    )
    assert list(rows) == ["a", "d.e", "g", "h"]
    assert (rows["a"].num_clients, rows["a"].mean, rows["a"].std) == (1, 2.0, 0.0)
    assert rows["g"] == MetricRow(session_id="s", round_number=3, phase="validate", metric="g", num_clients=0)


def test_aggregates_of_the_largest_numbers_are_finite() -> None:
    row = rows_of({"a": 1.7e308}, {"a": -1.7e308}, {"a": 1.7e308})["a"]
    assert all(math.isfinite(x) for x in (row.mean, row.std, *row.deciles, row.worst_tenth, row.best_tenth))  # type: ignore[arg-type]
    assert row.std == pytest.approx(1.7e308 * math.sqrt(8 / 9))


def test_client_with_thousands_of_metrics_does_not_hide_those_of_the_others() -> None:
    rows = rows_of({f"x{i}": 1.0 for i in range(5000)}, {"acc": 0.5}, {"acc": 0.7})
    assert len(rows) == MAX_METRICS and rows["acc"].mean == pytest.approx(0.6)


def test_round_has_rows_by_phase_and_the_event_carries_them(federation: Federation, at_once: AtOnce) -> None:
    session = federation.run(clients=5, rounds=2, sampler={"held_out": ["client-4"]}, validation={"every": 2})
    rows = federation.store.list_metric_rows(session.session_id)
    assert {(row.round_number, row.phase) for row in rows} >= {(2, "validate"), (2, "held_out")}
    assert not [row for row in rows if row.round_number == 1 and row.phase == "validate"]
    for row in federation.store.list_rounds(session.session_id):
        of_round = federation.store.list_metric_rows(session.session_id, round_number=row.round_number)
        expected = {(one.phase, one.metric): one.weighted_mean for one in former_rows(row)}
        assert {(one.phase, one.metric): one.weighted_mean for one in of_round} == expected
        counts = {(one.phase, one.metric): one.num_clients for one in former_rows(row)}
        assert {(one.phase, one.metric): one.num_clients for one in of_round} == counts
    events = [event for event in federation.events if isinstance(event, RoundFinished)]
    assert [row for event in events for row in event.metrics] == rows


def test_readers_get_means_and_spread_of_rounds_without_rows(federation: Federation, at_once: AtOnce) -> None:
    session = federation.run(clients=3, rounds=2, validation={"every": 1})
    expected = all_metric_rows(federation.store, session.session_id)
    with closing(sqlite3.connect(federation.home.state_db)) as database, database:
        database.execute("delete from metric_rows where round_number = 1")
    found = all_metric_rows(federation.store, session.session_id)
    of_training = [one for one in expected if one.round_number == 1 and one.phase == "train"]
    assert of_training and [one for one in found if one not in expected] == [
        dataclasses.replace(one, mean=None, std=None, min=None, max=None, deciles=[], worst_tenth=None, best_tenth=None)
        for one in of_training
    ], "the validations of each client are on record, what they reported from training is not"
    keys = [(one.round_number, one.phase, one.metric) for one in expected]
    assert [(one.round_number, one.phase, one.metric) for one in found] == keys


def test_metric_that_is_finite_for_some_counts_those_in_former_rounds() -> None:
    row = RoundRow(
        session_id="s",
        round_number=1,
        cohort=[],
        target=0,
        started_at=0.0,
        metrics={"loss": 1.0, "held_out/loss": None, "num_examples": 5.0},
        averages={"validate": {"num_clients": 3, "finite": {"loss": [2, 3]}}, "held_out": {"num_clients": 1}},
    )
    found = {(one.phase, one.metric): (one.num_clients, one.weighted_mean) for one in former_rows(row)}
    assert found == {("validate", "loss"): (2, 1.0), ("held_out", "loss"): (1, None)}


def test_aggregates_are_shown_on_request(
    federation: Federation, at_once: AtOnce, capsys: pytest.CaptureFixture[str]
) -> None:
    session = federation.run(clients=3, rounds=2, validation={"every": 1})

    def printed(*words: str) -> str:
        assert run_command([*words, "--home", str(federation.home.root)]) == 0
        return capsys.readouterr().out

    expected = federation.store.list_metric_rows(session.session_id, round_number=2)
    listed = json.loads(printed("metric", "list", "--aggregates", "--round", "2", "--json"))
    assert listed == [dataclasses.asdict(row) for row in expected]
    assert json.loads(printed("session", "show", "--metrics", "--round", "2", "--json"))["aggregates"] == listed
    assert "aggregates" not in json.loads(printed("session", "show", "--json"))
    for words in (("metric", "list", "--aggregates"), ("session", "show", "--metrics")):
        assert "worst 10%" in printed(*words) and "worst 10%" not in printed(*words[:2])
