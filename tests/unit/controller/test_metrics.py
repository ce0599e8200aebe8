"""Averages of what clients report."""

from __future__ import annotations

import math
from typing import Any

import pytest
from at_once import AtOnce
from federation import Federation

from fedpkg.controller.metrics import (
    average,
    common_weights,
    finite_number,
    weight_by_rules_1,
)
from fedpkg.errors import ModelFileError
from fedpkg.formats.metadata import examples_said
from fedpkg.stores.base import ClientRow, RoundRow
from fedpkg.strategies import Traits
from fedpkg.strategies.base import Request, State, Step, StepContext
from fedpkg.types import ReplyKind
from fedpkg.weights.weights import Weights

NAN, INF = float("nan"), float("inf")


def client(*, split: int | None = None, last: float | None = None) -> ClientRow:
    return ClientRow(session_id="s", client_id="c", position=0, num_examples=split, last_num_examples=last)


def test_average_is_weighted_and_num_examples_is_a_sum() -> None:
    found = average(
        [({"acc": 1.0, "num_examples": 1}, (1.0, "reply")), ({"acc": 0.0, "num_examples": 3}, (3.0, "reply"))]
    )
    assert found.values == {"acc": 0.25, "num_examples": 4.0}
    assert found.about == {"num_clients": 2, "weight_source": "reply"}


def test_numbers_that_are_not_finite_are_left_out_and_counted() -> None:
    found = average(
        [
            ({"a": NAN, "b": True, "c": "text", "d": {"e": 1}, "f": 2, "g": INF, "h": 10**400}, (1.0, "equal")),
            ({"a": 1.0, "g": -INF}, (1.0, "equal")),
            ([1, 2], (1.0, "equal")),
        ]
    )
    assert found.values == {"a": 1.0, "f": 2.0, "g": None, "h": None}
    assert found.about["finite"] == {"a": [1, 2], "g": [0, 2], "h": [0, 1]}


def test_weights_of_zero_weigh_nothing_and_are_never_divided_by() -> None:
    found = average([({"a": 1.0}, (0.0, "reply")), ({"a": NAN, "b": 3.0}, (2.0, "reply"))])
    assert found.values == {"a": None, "b": 3.0}
    assert average([]).values == {}


def test_average_of_the_largest_numbers_is_finite() -> None:
    value = average([({"a": 1.7e308}, (2.0**53, "reply")), ({"a": 1.7e308}, (2.0**53, "reply"))]).values["a"]
    assert value == pytest.approx(1.7e308)


@pytest.mark.parametrize(
    ("reported", "clients", "weighting", "expected"),
    [
        ([7.0, 0.0], [client(split=1, last=2.0), client(split=3, last=4.0)], "examples", ([7.0, 0.0], "reply")),
        ([7.0, None], [client(split=1, last=2.0), client(split=0, last=4.0)], "examples", ([1.0, 0.0], "split")),
        ([None, None], [client(last=600.0), client(last=4.0)], "examples", ([600.0, 4.0], "train")),
        ([None, None], [client(split=5, last=600.0), client(last=4.0)], "examples", ([600.0, 4.0], "train")),
        ([None, None], [client(last=600.0), client()], "examples", ([1.0, 1.0], "equal")),
        ([None, 9.0], [client(split=5, last=6.0), client(split=5, last=4.0)], "equal", ([1.0, 1.0], "equal")),
    ],
)
def test_all_weights_of_an_average_have_one_source(
    reported: list[float | None], clients: list[ClientRow], weighting: Any, expected: tuple[list[float], str]
) -> None:
    weights = common_weights(reported, clients, weighting=weighting)
    assert [number for number, _ in weights] == expected[0]
    assert {source for _, source in weights} == {expected[1]}


def test_reported_examples_may_be_zero_and_nothing_that_is_no_weight() -> None:
    assert examples_said({"num_examples": 0}, {"num_examples": 5}) == 0.0
    assert examples_said([], {"num_examples": 5}) == 5.0
    assert examples_said({"acc": 1}, {}) is None
    for value in (-1, NAN, INF, 1e308, 10**400, 1e-300, True, "7", None):
        with pytest.raises(ModelFileError, match="num_examples"):
            examples_said({"num_examples": value}, {})


def test_by_rules_1_weights_come_from_the_reply_then_from_training_then_are_one() -> None:
    assert weight_by_rules_1({"num_examples": 7}, {}, 3.0) == (7.0, "reply")
    assert weight_by_rules_1({}, {"num_examples": 5}, 3.0) == (5.0, "reply")
    assert weight_by_rules_1({"num_examples": -1}, {}, 3.0) == (3.0, "train")
    assert weight_by_rules_1([], {}, None) == (1.0, "default")


@pytest.mark.parametrize("value", [True, "1", None, float("inf"), float("nan"), 10**400, [1]])
def test_these_are_no_finite_numbers(value: object) -> None:
    assert finite_number(value) is None


def round_of(federation: Federation, **changes: Any) -> tuple[RoundRow, list[tuple[float, str]]]:
    """The last round of a session, and what its clients weighed."""
    session = federation.run(**{"validation": {"every": 1}, **changes})
    row = federation.store.list_rounds(session.session_id)[-1]
    rows = federation.store.list_validations(session.session_id, round_number=row.round_number)
    return row, [(one.weight, one.weight_source) for one in rows]


def test_client_that_has_trained_weighs_no_more_than_those_that_have_not(
    federation: Federation, at_once: AtOnce
) -> None:
    at_once.validates = {f"client-{i}": {"accuracy": 0.0} for i in range(10)}
    at_once.examples = {f"client-{i}": 600 for i in range(10)}
    session = federation.run(clients=10, sampler={"fraction_train": 0.1}, validation={"every": 0})
    (trained,) = federation.store.list_rounds(session.session_id)[0].cohort
    at_once.validates[trained] = {"accuracy": 1.0}
    row, weights = round_of(federation, clients=10, sampler={"fraction_train": 0.1})
    assert row.cohort == [trained]
    assert row.metrics == {"accuracy": 0.1}
    assert weights == 10 * [(1.0, "equal")]
    assert row.averages["validate"] == {"num_clients": 10, "weight_source": "equal"}
    assert row.averages["train"]["weight_source"] == "reply"


def test_client_without_test_data_weighs_nothing(federation: Federation, at_once: AtOnce) -> None:
    at_once.examples = {"client-0": 10, "client-1": 10, "client-2": 980}
    at_once.validates = {f"client-{i}": {"accuracy": 1.0, "num_examples": 10} for i in (0, 1)}
    at_once.validates["client-2"] = {"accuracy": 0.0, "num_examples": 0}
    row, weights = round_of(federation)
    assert row.metrics == {"accuracy": 1.0, "num_examples": 20.0}
    assert weights == [(10.0, "reply"), (10.0, "reply"), (0.0, "reply")]


def test_where_nobody_has_test_data_there_is_no_average(federation: Federation, at_once: AtOnce) -> None:
    at_once.validates = {f"client-{i}": {"accuracy": 0.5, "num_examples": 0} for i in range(3)}
    row, _ = round_of(federation)
    assert row.metrics == {"accuracy": None, "num_examples": 0.0}


def test_after_training_by_all_their_examples_are_the_weights(federation: Federation, at_once: AtOnce) -> None:
    at_once.examples = {"client-0": 1, "client-1": 3}
    at_once.validates = {"client-0": {"accuracy": 0.0, "num_examples": 5}, "client-1": {"accuracy": 1.0}}
    row, weights = round_of(federation, clients=2)
    assert row.metrics["accuracy"] == 0.75
    assert weights == [(1.0, "train"), (3.0, "train")]


def test_held_out_clients_have_an_average_with_a_source_of_its_own(federation: Federation, at_once: AtOnce) -> None:
    at_once.validates = {f"client-{i}": {"accuracy": i / 10} for i in range(4)}
    at_once.validates["client-3"] = {"accuracy": math.nan}
    row, _ = round_of(federation, clients=4, sampler={"held_out": ["client-2", "client-3"]})
    assert row.averages["validate"] == {"num_clients": 2, "weight_source": "train"}
    assert row.averages["held_out"] == {"num_clients": 2, "weight_source": "equal", "finite": {"accuracy": [1, 2]}}
    assert row.metrics["held_out/accuracy"] == 0.2


@pytest.mark.parametrize("value", [-5, 1e308, 10**400, math.nan, "12"])
def test_num_examples_that_cannot_be_a_weight_is_that_clients_failure(
    federation: Federation, at_once: AtOnce, value: object
) -> None:
    at_once.validates = {"client-0": {"accuracy": 0.0, "num_examples": value}}
    at_once.validates |= {f"client-{i}": {"accuracy": 1.0, "num_examples": 10} for i in (1, 2)}
    row, weights = round_of(federation)
    assert row.metrics["accuracy"] == 1.0
    assert len(weights) == 2
    (failed,) = [
        task for task in federation.store.list_tasks(row.session_id, entry_point="validate") if task.status == "failed"
    ]
    assert (failed.client_id, failed.failure) == ("client-0", "num_examples")
    assert "num_examples" in str(failed.message)


def test_metrics_that_are_not_finite_are_counted(federation: Federation, at_once: AtOnce) -> None:
    at_once.validates = {
        "client-0": {"loss": math.nan, "worst": math.inf, "num_examples": 1},
        "client-1": {"loss": 1.0, "worst": math.nan, "num_examples": 1},
    }
    row, _ = round_of(federation, clients=2)
    assert row.metrics == {"loss": 1.0, "worst": None, "num_examples": 2.0}
    assert row.averages["validate"]["finite"] == {"loss": [1, 2], "worst": [0, 2]}


class Asks:
    """Asks all clients for metrics, and keeps what they weigh."""

    traits = Traits(entry_points=("validate",))

    def init(self, seed_model: Weights) -> State:
        return {"model": seed_model}

    def step(self, state: State, ctx: StepContext) -> Step:
        replies = yield Request(payload=state["model"], entry_point="validate", reply_kind=ReplyKind.METRICS)
        return {"model": state["model"], "metrics": {reply.client_id: reply.num_examples for reply in replies}}


def test_metrics_that_a_strategy_asks_for_have_weights_of_one_source(federation: Federation, at_once: AtOnce) -> None:
    at_once.validates = {"client-0": {"num_examples": 7}, "client-1": {}, "client-2": {"num_examples": -1}}
    row, _ = round_of(federation, strategy={"name": f"{__name__}:Asks"}, validation={"every": 0})
    assert row.strategy_metrics == {"client-0": 1.0, "client-1": 1.0}, "client-2 has failed"
    at_once.validates = {"client-0": {"num_examples": 7}, "client-1": {"num_examples": 0}, "client-2": {}}
    row, _ = round_of(federation, clients=2, strategy={"name": f"{__name__}:Asks"}, validation={"every": 0})
    assert row.strategy_metrics == {"client-0": 7.0, "client-1": 0.0}
