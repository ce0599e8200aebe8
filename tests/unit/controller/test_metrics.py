"""Averages of what clients report."""

from __future__ import annotations

import pytest

from fedpkg.controller.metrics import finite_number, metrics_weight, weighted_average


def test_average_is_weighted_and_num_examples_is_a_sum() -> None:
    values = [({"acc": 1.0, "num_examples": 1}, 1.0), ({"acc": 0.0, "num_examples": 3}, 3.0)]
    assert weighted_average(values) == {"acc": 0.25, "num_examples": 4.0}


def test_what_is_not_a_finite_number_is_left_out() -> None:
    values = [
        ({"a": float("nan"), "b": True, "c": "text", "d": {"e": 1}, "f": 2}, 1.0),
        ({"a": 1.0}, 1.0),
        ([1, 2], 1.0),
    ]
    assert weighted_average(values) == {"a": 1.0, "f": 2.0}


def test_weight_comes_from_the_reply_then_from_training_then_is_one() -> None:
    assert metrics_weight({"num_examples": 7}, {}, 3.0) == (7.0, "reply")
    assert metrics_weight({}, {"num_examples": 5}, 3.0) == (5.0, "reply")
    assert metrics_weight({"num_examples": -1}, {}, 3.0) == (3.0, "train")
    assert metrics_weight([], {}, None) == (1.0, "default")


@pytest.mark.parametrize("value", [True, "1", None, float("inf"), float("nan"), 10**400, [1]])
def test_these_are_no_finite_numbers(value: object) -> None:
    assert finite_number(value) is None
