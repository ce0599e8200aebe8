"""What FedAvg makes of replies: the arithmetic, and which replies are left out."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch

from fedpkg.apps import Error, Message
from fedpkg.apps.strategy import FedAvg, FedMedian
from fedpkg.records import ArrayRecord, MetricRecord, RecordDict
from fedpkg.strategies.aggregators.mean import WeightedMean
from fedpkg.strategies.base import Reply
from fedpkg.strategies.folds import folded
from fedpkg.weights.weights import Weights
from tests.unit.apps.grids import content, floats, plain, replies_to


def combined(sent: dict[str, Any], *answers: Any) -> tuple[dict[str, Any], MetricRecord]:
    strategy = FedAvg()
    arrays, metrics = strategy.aggregate_train(1, replies_to(strategy, sent, list(answers)))
    assert metrics is not None
    return plain(arrays), metrics


def test_arrays_and_metrics_are_averaged_by_numbers_of_examples() -> None:
    arrays, metrics = combined(
        {"w": floats(0, 0), "b": np.zeros((2, 1))},
        content({"w": floats(1, 2), "b": np.ones((2, 1))}, n=10, loss=1.0, per_class=[1.0, 0.0]),
        content({"w": floats(5, 6), "b": np.full((2, 1), 3.0)}, n=30, loss=3, per_class=[0.0, 1.0]),
    )
    np.testing.assert_allclose(arrays["w"], [4, 5], rtol=1e-6)
    np.testing.assert_array_equal(arrays["b"], [[2.5], [2.5]])
    assert (arrays["w"].dtype, arrays["b"].dtype) == (np.float32, np.float64)
    assert metrics == {"loss": 2.5, "per_class": [0.25, 0.75]}


def test_bits_are_those_of_a_package_with_the_same_updates() -> None:
    rng = np.random.default_rng(0)
    updates = [rng.standard_normal((7, 5)).astype(np.float32) for _ in range(21)]
    answers: list[Any] = [content({"w": one}, n=3 + place) for place, one in enumerate(updates)]
    answers[17] = Error(2, "it fails")
    arrays, _ = combined({"w": np.zeros((7, 5), np.float32)}, *answers)
    fold = WeightedMean().fold(Weights({"w": torch.zeros(7, 5)}))
    replies = (
        Reply("", place, str(place), {"": Weights({"w": torch.from_numpy(one)})}, 3.0 + place)
        for place, one in enumerate(updates)
        if place != 17
    )
    assert arrays["w"].tobytes() == folded(fold, replies)["w"].numpy().tobytes()


# What the other implementation does with these: another dtype, 0.25, a sum in float16.
@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (np.array(3), np.array(4), np.array(4)),
        (np.array([True, False]), np.array([False, True]), np.array([False, True])),
        (np.array([2048], np.float16), np.array([2050], np.float16), np.array([2050], np.float16)),
    ],
)
def test_dtypes_stay_as_they_are(one: Any, other: Any, expected: Any) -> None:
    arrays, _ = combined({"x": np.zeros_like(one)}, content({"x": one}, n=10), content({"x": other}, n=30))
    assert (arrays["x"].dtype, arrays["x"].shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(arrays["x"], expected)


def test_a_sum_of_halves_does_not_stop_growing() -> None:
    half = np.array([1.0], np.float16)
    arrays, _ = combined({"x": half}, *[content({"x": half}, n=1)] * 3000)
    assert arrays["x"] == 1


def test_bfloat16_is_averaged() -> None:
    def record(value: float) -> ArrayRecord:
        return ArrayRecord({"x": torch.tensor([value], dtype=torch.bfloat16)})

    strategy = FedAvg()
    answers: list[Any] = [content(record(1.0), n=1), content(record(3.0), n=1)]
    arrays, _ = strategy.aggregate_train(1, replies_to(strategy, dict(record(0)), answers))
    assert arrays is not None
    assert arrays["x"].dtype == "bfloat16"
    assert arrays.to_torch_state_dict()["x"] == 2


def test_batch_norm_keeps_valid_statistics() -> None:
    layer = torch.nn.BatchNorm1d(2)
    sent = ArrayRecord(layer.state_dict())

    def answer(variance: float, batches: int) -> RecordDict:
        state = {**layer.state_dict(), "running_var": torch.full((2,), variance)}
        return content(ArrayRecord({**state, "num_batches_tracked": torch.tensor(batches)}), n=1)

    arrays, _ = combined(dict(sent), answer(1.0, 3), answer(3.0, 5))
    np.testing.assert_array_equal(arrays["running_var"], [2, 2])
    assert arrays["num_batches_tracked"] == 3, "of equal weights, the first"
    assert arrays["num_batches_tracked"].dtype == np.int64


def test_a_single_reply_is_taken_as_it_is() -> None:
    values = np.array([0.1, -0.0, 1e-40], np.float32)
    arrays, _ = combined({"w": floats(0, 0, 0)}, content({"w": values}, n=7), Error(2, "no"))
    assert arrays["w"].tobytes() == values.tobytes()


GOOD = content({"w": floats(1, 1)}, n=1, loss=1.0)
BAD = {
    "error 2: boom": Error(2, "boom"),
    "has shape": content({"w": floats(1, 2, 3)}, n=1),
    "has shape (1,)": content({"w": floats(1)}, n=1),  # it would broadcast
    "extra array 'v'": content({"w": floats(1, 1), "v": floats(1)}, n=1),
    "missing array 'w'": content({"v": floats(1, 1)}, n=1),
    "has dtype int64": content({"w": np.array([1, 1])}, n=1),
    "'w' has NaN or infinite values": content({"w": floats(np.nan, 1)}, n=1),
    "NaN or infinite values": content({"w": floats(1, np.inf)}, n=1),
    "have no 'num-examples'": content({"w": floats(1, 1)}, loss=1.0),
    "is 0; it must be": content({"w": floats(1, 1)}, n=0),
    "is -5; it must be": content({"w": floats(1, 1)}, n=-5),
    "is nan; it must be": content({"w": floats(1, 1)}, n=float("nan")),
    "is inf; it must be": content({"w": floats(1, 1)}, n=float("inf")),
    "is a list": content({"w": floats(1, 1)}, n=[1, 2]),
    "it has no arrays": content(None, n=1),
    "2 array records ('a', 'b'), none of them 'arrays'": RecordDict(
        {"a": ArrayRecord({"w": floats(1, 1)}), "b": ArrayRecord(), "metrics": MetricRecord({"num-examples": 1})}
    ),
}


@pytest.mark.parametrize("reason", BAD)
@pytest.mark.parametrize("place", [0, 2])
def test_one_bad_reply_costs_that_reply_only(reason: str, place: int, caplog: pytest.LogCaptureFixture) -> None:
    answers: list[Any] = [GOOD, content({"w": floats(3, 5)}, n=1, loss=2.0)]
    answers.insert(place, BAD[reason])
    arrays, metrics = combined({"w": floats(0, 0)}, *answers)
    np.testing.assert_array_equal(arrays["w"], [2, 3])
    assert metrics == {"loss": 1.5}
    assert f"round 1: training: node {place + 1} is left out: " in caplog.text
    assert reason in caplog.text


def test_equal_failures_of_many_nodes_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    failed = [Error(2, f"'train' exited with code 2 after {number / 10} s; it fails") for number in range(7)]
    combined({"w": floats(0, 0)}, GOOD, *failed)
    assert "nodes 2, 3, 4, 5, 6 and 2 more are left out: error 2: 'train' exited with code 2; it fails" in caplog.text
    assert caplog.text.count("left out") == 1


def test_without_a_usable_reply_there_is_no_result() -> None:
    strategy = FedAvg()
    assert strategy.aggregate_train(1, replies_to(strategy, {"w": floats(0, 0)}, list(BAD.values()))) == (None, None)
    assert strategy.aggregate_train(1, []) == (None, None)
    assert strategy.aggregate_evaluate(1, []) is None


def test_another_precision_is_converted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    answers: list[Any] = [content({"w": np.array([1.0, 2.0])}, n=1), content({"w": floats(3, 4)}, n=1)]
    strategy = FedAvg()
    for _ in range(2):
        arrays, _metrics = strategy.aggregate_train(1, replies_to(strategy, {"w": floats(0, 0)}, answers))
        assert plain(arrays)["w"].dtype == np.float32
        np.testing.assert_array_equal(plain(arrays)["w"], [2, 3])
    assert caplog.text.count("'w' from float64 to float32") == 1


def test_a_metric_that_one_reply_lacks_is_averaged_over_the_others() -> None:
    arrays = {"w": floats(1)}
    _, metrics = combined(
        {"w": floats(0)},
        content(arrays, n=1, loss=1.0),
        content(arrays, n=3, loss=2.0, extra=5.0),
        content(arrays, n=1, loss=[1.0, 2.0], extra=float("nan")),
    )
    assert metrics == {"loss": 1.75, "extra": 5.0}


def test_replies_with_other_arrays_than_sent_are_combined_among_themselves(caplog: pytest.LogCaptureFixture) -> None:
    """An app may send a whole model and get the head alone."""
    answers: list[Any] = [content({"head": floats(1, 2)}, n=1), content({"head": floats(3, 4)}, n=1)]
    answers.append(content({"odd": floats(1)}, n=1))
    arrays, _ = combined({"body": floats(0), "head": floats(0, 0)}, *answers)
    assert list(arrays) == ["head"]
    np.testing.assert_array_equal(arrays["head"], [2, 3])
    assert "node 3 is left out" in caplog.text


@pytest.mark.parametrize(
    "answers",
    [
        [content({"w": floats(1, 2, 3)}, n=1)] * 2,  # the names that were sent
        [content({"w": np.array([1, 2])}, n=1)] * 2,
        [content({"v": floats(1)}, n=1), content({"u": floats(1)}, n=1)],  # no majority
    ],
)
def test_replies_that_all_misfit_do_not_become_the_model(answers: list[Any]) -> None:
    strategy = FedAvg()
    assert strategy.aggregate_train(1, replies_to(strategy, {"w": floats(0, 0)}, answers)) == (None, None)


def test_functions_of_the_app_make_the_metrics_and_these_are_shown() -> None:
    def counted(contents: list[RecordDict], key: str) -> MetricRecord:
        return MetricRecord({"replies": len(contents), "examples": sum(one["metrics"][key] for one in contents)})

    strategy = FedAvg(train_metrics_aggr_fn=counted, evaluate_metrics_aggr_fn=counted)
    replies = replies_to(strategy, {"w": floats(0, 0)}, [GOOD, Error(2, "no"), GOOD])
    _, metrics = strategy.aggregate_train(1, replies)
    assert metrics == {"replies": 2, "examples": 2}
    assert strategy.aggregate_evaluate(1, replies) == {"replies": 2, "examples": 2}
    assert strategy.shown(metrics, None, MetricRecord({"loss": 1.0})) == {
        "train_replies": 2,
        "train_examples": 2,
        "server_loss": 1.0,
    }


def test_evaluation_leaves_out_replies_without_a_weight(caplog: pytest.LogCaptureFixture) -> None:
    strategy = FedAvg()
    answers: list[Any] = [content(None, n=1, accuracy=0.5), content(None, n=0, accuracy=1.0), Error(2, "x")]
    replies = replies_to(strategy, {"w": floats(0)}, answers)
    assert strategy.aggregate_evaluate(4, replies) == {"accuracy": 0.5}
    assert "round 4: evaluation: node 2 is left out" in caplog.text


def test_replies_alone_are_enough_for_a_mean() -> None:
    """Without a configure_train before, as in a unit test of an app."""
    sent = [Message(RecordDict(), node, "train") for node in (1, 2)]
    replies = [Message(content({"w": floats(node)}, n=1), reply_to=one) for node, one in enumerate(sent)]
    for kind in (FedAvg, FedMedian):
        arrays, _ = kind().aggregate_train(1, replies)
        assert plain(arrays)["w"] == [0.5]


def test_a_strategy_can_ask_which_replies_are_usable(caplog: pytest.LogCaptureFixture) -> None:
    class Counting(FedAvg):
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            usable, others = self._check_and_log_replies(replies, is_train=True)
            return usable[0].content["arrays"], MetricRecord({"usable": len(usable), "others": len(others)})

    strategy = Counting()
    with caplog.at_level(logging.WARNING, "flwr"):
        _, metrics = strategy.aggregate_train(1, replies_to(strategy, {"w": floats(0, 0)}, [GOOD, *BAD.values()]))
    assert metrics == {"usable": 1, "others": len(BAD)}


def test_arrays_of_a_result_do_not_change_with_the_next_round() -> None:
    strategy = FedAvg()
    first, _ = strategy.aggregate_train(1, replies_to(strategy, {"w": floats(0, 0)}, [GOOD, GOOD]))
    other = content({"w": floats(7, 7)}, n=1)
    strategy.aggregate_train(2, replies_to(strategy, dict(first or {}), [other, other]))
    np.testing.assert_array_equal(plain(first)["w"], [1, 1])
