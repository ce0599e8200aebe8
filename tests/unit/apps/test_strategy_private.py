"""Differential privacy around a strategy: clipping, noise, adaptive norms, and the account."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest

from fedpkg.apps import ClientApp, Context, Error, Message
from fedpkg.apps.mods import adaptiveclipping_mod, fixedclipping_mod
from fedpkg.apps.strategy import (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAdam,
    FedAvg,
    FedMedian,
)
from fedpkg.records import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from tests.unit.apps.grids import MemoryGrid, content, floats, plain, replies_to

ServerFixed = DifferentialPrivacyServerSideFixedClipping
ServerAdaptive = DifferentialPrivacyServerSideAdaptiveClipping
WRAPPERS = [
    lambda inner, z: ServerFixed(inner, z, 0.5, 4),
    lambda inner, z: DifferentialPrivacyClientSideFixedClipping(inner, z, 0.5, 4),
    lambda inner, z: ServerAdaptive(inner, z, 4, 0.5, clipped_count_stddev=3.0),
    lambda inner, z: DifferentialPrivacyClientSideAdaptiveClipping(inner, z, 4, 0.5, clipped_count_stddev=3.0),
]


def after(strategy: Any, sent: dict[str, Any], answers: list[Any]) -> dict[str, Any]:
    arrays, _ = strategy.aggregate_train(1, replies_to(strategy, sent, answers))
    return plain(arrays)


def moved(step: Any, **metrics: Any) -> RecordDict:
    return content({"w": np.asarray(step, np.float32), "n": np.array(3), "running_mean": floats(9)}, **metrics)


SENT = {"w": floats(0, 0), "n": np.array(1), "running_mean": floats(1)}


def test_updates_are_clipped_and_count_the_same() -> None:
    answers = [moved([3, 4], n=1000, **{"norm-bit": 0}), moved([0.3, 0], n=1, **{"norm-bit": 1})]
    for make in WRAPPERS:
        came = after(make(FedAvg(), 0.0), SENT, answers)
        # (0.3, 0.4) of the first, which has the norm 5, and all of the second.
        np.testing.assert_allclose(came["w"], [0.3, 0.2], rtol=1e-6)
        assert came["n"] == 3
        assert came["running_mean"] == 9, "buffers are not clipped"


def test_an_unchanged_model_is_fine() -> None:
    answers = [moved([0, 0], n=1, **{"norm-bit": 1})] * 2
    for make in WRAPPERS:
        np.testing.assert_array_equal(after(make(FedAvg(), 0.0), SENT, answers)["w"], [0, 0])


@pytest.mark.parametrize(("num_replies", "smaller"), [(8, 8), (4, 4)])
def test_noise_has_the_deviation_that_is_due(num_replies: int, smaller: int) -> None:
    random.seed(5)
    sent = {"w": np.zeros(40_000, np.float32), "n": np.array(1), "running_mean": floats(1)}
    answers = [content({"w": sent["w"], "n": np.array(2), "running_mean": floats(7)}, n=1)] * num_replies
    came = after(ServerFixed(FedAvg(), 1.5, 0.5, 8), sent, answers)
    due = 1.5 * 0.5 / smaller
    assert abs(came["w"].std() / due - 1) < 0.02
    assert abs(came["w"].mean()) < 4 * due / 200
    assert came["n"] == 2
    assert came["running_mean"] == 7
    assert came["w"].dtype == np.float32


def test_noise_follows_from_the_seed_of_random() -> None:
    def run(seed: int) -> bytes:
        random.seed(seed)
        result: bytes = after(ServerFixed(FedAvg(), 1.0, 0.5, 2), SENT, [moved([1, 1], n=1)] * 2)["w"].tobytes()
        return result

    assert run(1) == run(1) != run(2)


def test_noise_is_added_before_the_servers_step() -> None:
    """Adam's steps have similar lengths for all gradients; noise after the step would be as long as the norm."""
    random.seed(1)
    sent = {"w": np.zeros(1000, np.float32)}
    answers = [content({"w": sent["w"]}, n=1)] * 4
    came = after(ServerFixed(FedAdam(eta=1e-3), 1.0, 100.0, 4), sent, answers)
    assert 0 < np.abs(came["w"]).max() < 2e-3


def test_an_aggregation_of_the_app_gets_noise_afterwards() -> None:
    class First(FedAvg):
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            return next(iter(replies)).content["arrays"], MetricRecord()

    random.seed(1)
    came = after(ServerFixed(First(), 1.0, 0.5, 2), SENT, [moved([0, 0], n=1)] * 2)
    assert (came["w"] != 0).all()


def test_other_strategies_can_be_inside(caplog: pytest.LogCaptureFixture) -> None:
    answers = [moved([0, 0], n=1), moved([30, 40], n=1), moved([0.1, 0], n=1)]
    came = after(ServerFixed(FedMedian(), 0.0, 0.5, 3), SENT, answers)
    np.testing.assert_allclose(came["w"], [0.1, 0], rtol=1e-6)
    strategy = ServerFixed(FedMedian(), 1.0, 0.5, 3)
    after(strategy, SENT, answers)
    assert strategy.epsilon is None
    assert "epsilon is not computed: FedMedian takes no plain mean" in caplog.text


def test_tied_arrays_get_the_same_noise() -> None:
    weights = np.arange(4, dtype=np.float32)
    answers = [content({"a": weights + 0.1, "b": weights + 0.1}, n=1)] * 2
    came = after(ServerFixed(FedAvg(), 1.0, 0.5, 2), {"a": weights, "b": weights}, answers)
    assert came["a"].tobytes() == came["b"].tobytes()


def test_bad_replies_are_left_out_once(caplog: pytest.LogCaptureFixture) -> None:
    answers = [moved([0.1, 0], n=1), Error(2, "boom"), moved([math.nan, 0], n=1), moved([0.3, 0], n=1)]
    came = after(ServerFixed(FedAvg(), 0.0, 0.5, 4), SENT, answers)
    np.testing.assert_allclose(came["w"], [0.2, 0], rtol=1e-6)
    assert [caplog.text.count(f"node {node} is left out") for node in (1, 2, 3, 4)] == [0, 1, 1, 0]
    strategy = ServerFixed(FedAvg(), 1.0, 0.5, 4)
    assert strategy.aggregate_train(1, replies_to(strategy, SENT, [Error(2, "x")] * 4)) == (None, None)


@pytest.mark.parametrize(
    ("lengths", "direction"), [([0.1, 0.1, 0.1, 0.1], -1), ([9, 9, 9, 9], 1), ([9, 9, 0.1, 0.1], 0)]
)
def test_the_norm_follows_the_quantile(lengths: list[float], direction: int) -> None:
    strategy = ServerAdaptive(FedAvg(), 0.0, 4, initial_clipping_norm=1.0, clip_norm_lr=0.3)
    after(strategy, SENT, [moved([length, 0], n=1) for length in lengths])
    assert strategy.clipping_norm == pytest.approx(math.exp(0.3 * 0.5 * direction))


def test_a_share_with_noise_costs_the_mean_more_noise() -> None:
    strategy = ServerAdaptive(FedAvg(), 1.0, 40, clipped_count_stddev=2.0)
    assert strategy._multiplier() == pytest.approx((1 - 1 / 16) ** -0.5)
    with pytest.raises(ValueError, match=r"clipped_count_stddev is 0.5; .* it must be above 0.5"):
        ServerAdaptive(FedAvg(), 1.0, 40, clipped_count_stddev=0.5)


@pytest.mark.parametrize(
    ("mod", "make"), [(fixedclipping_mod, WRAPPERS[1]), (adaptiveclipping_mod, WRAPPERS[3])], ids=["fixed", "adaptive"]
)
def test_clients_clip_by_the_mod(mod: Any, make: Any) -> None:
    app = ClientApp(mods=[mod])

    @app.train()
    def train(message: Message, _context: Context) -> Message:
        weights = message.content["arrays"]["w"].numpy()
        return Message(content({"w": weights + floats(3, 4)}, n=1), reply_to=message)

    clipped: list[Any] = []

    def answer(node: int, message: Message) -> RecordDict:
        reply = app(message, Context(1, node, {}, RecordDict(), {})).content
        clipped.append(plain(reply["arrays"])["w"])  # type: ignore[arg-type]
        return reply

    strategy = make(FedAvg(fraction_evaluate=0), 0.0)
    grid = MemoryGrid(4, answer)
    config = ConfigRecord({"lr": 0.1})
    result = strategy.start(grid, ArrayRecord({"w": floats(0, 0)}), num_rounds=1, train_config=config)
    assert config == {"lr": 0.1}
    assert grid.sent[0][0].content["config"]["clipping-norm"] == 0.5
    np.testing.assert_allclose(clipped[0], [0.3, 0.4], rtol=1e-6)
    np.testing.assert_allclose(plain(result.arrays)["w"], [0.3, 0.4], rtol=1e-6)
    assert result.train_metrics_clientapp[1] == {}, "the bits about norms are private"


def test_a_client_without_the_mod_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    strategy = WRAPPERS[3](FedAvg(), 0.0)
    assert strategy.aggregate_train(1, replies_to(strategy, SENT, [moved([1, 1], n=1)] * 4)) == (None, None)
    assert "add adaptiveclipping_mod to the mods" in caplog.text
    assert caplog.text.count("left out") == 1, "equal reasons are one line"


def test_epsilon_grows_and_is_shown() -> None:
    pytest.importorskip("dp_accounting")
    grid = MemoryGrid(20, lambda node, message: content(message.content["arrays"], n=1))
    strategy = ServerFixed(FedAvg(fraction_train=0.2, fraction_evaluate=0), 1.0, 0.5, 4)
    strategy.start(grid, ArrayRecord({"w": floats(0)}), num_rounds=3)
    first, second, third = (one["metrics"]["epsilon"] for one in grid.rounds)
    assert 0 < first < second < third
    from fedpkg.strategies.accounting import Spent, epsilon

    assert third == pytest.approx(epsilon([Spent("without_replacement", 0.2, 1.0, 3)], 1e-5, population=20))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ServerFixed("fedavg", 1.0, 1.0, 2), "strategy is a str; it must derive from FedAvg"),  # type: ignore[arg-type]
        (lambda: ServerFixed(FedAvg(), -1.0, 1.0, 2), "noise_multiplier is -1.0"),
        (lambda: ServerFixed(FedAvg(), 1.0, 0.0, 2), "clipping_norm is 0.0"),
        (lambda: ServerFixed(FedAvg(), 1.0, 1.0, 0), "num_sampled_clients is 0"),
        (lambda: ServerFixed(FedAvg(), 1.0, 1.0, 2, accountant=object()), "accountant= is not supported"),  # type: ignore[arg-type]
        (lambda: ServerAdaptive(FedAvg(), 1.0, 2, accountant=object()), r"pip install 'fedpkg\[dp\]'"),  # type: ignore[arg-type]
        (lambda: ServerAdaptive(FedAvg(), 1.0, 9, target_clipped_quantile=2), "target_clipped_quantile is 2"),
    ],
)
def test_impossible_settings_are_refused(make: Any, said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        make()


def test_another_number_of_nodes_than_said_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    after(ServerFixed(FedAvg(), 1.0, 0.5, 9), SENT, [moved([0, 0], n=1)] * 2)
    assert "num_sampled_clients is 9, which decides the noise, but 2 nodes train" in caplog.text
