"""Server optimisers, robust strategies and q-FedAvg of message apps against their equations in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from fedpkg.apps import Error
from fedpkg.apps.errors import AggregationError, AppExitException, TooFewNodes
from fedpkg.apps.strategy import (
    Bulyan,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedStrategy,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    MultiKrum,
    QFedAvg,
)
from fedpkg.records import ArrayRecord, ConfigRecord
from fedpkg.strategies.base import Request
from fedpkg.types import ReplyKind
from fedpkg.weights.weights import Weights
from tests.unit.apps.grids import MemoryGrid, content, floats, plain, replies_to

START = np.array([1.0, -2.0, 0.5], np.float32)


def rounds(strategy: Any, num_rounds: int = 3) -> list[Any]:
    """The arrays after each round, in which two nodes move by known steps."""
    steps = {1: np.array([0.1, 0.2, -0.3], np.float32), 2: np.array([0.4, -0.1, 0.0], np.float32)}
    found = []

    def answer(node: int, message: Any) -> Any:
        sent = message.content["arrays"]["w"].numpy()
        return content(
            {"w": (sent + steps[node] * message.content["config"]["server-round"]).astype(np.float32)}, n=node
        )

    class Kept(MemoryGrid):
        def end_round(self, arrays: ArrayRecord | None = None, metrics: Any = None) -> None:
            found.append(plain(arrays)["w"])

    strategy.start(Kept(2, answer), ArrayRecord({"w": START}), num_rounds=num_rounds)
    return found


def expected(step: Callable[[Any, Any], Any], num_rounds: int = 3) -> list[Any]:
    """The same by a function of the model and of the mean's difference to it."""
    w, found = START.astype(np.float64), []
    mean = (np.array([0.1, 0.2, -0.3]) + 2 * np.array([0.4, -0.1, 0.0])) / 3
    for number in range(1, num_rounds + 1):
        w = step(w, mean * number)
        found.append(w)
    return found


class Adaptive:
    """FedOpt as published: m and v from 0 and tau^2, without a correction of the bias."""

    def __init__(self, rule: str, eta: float, beta_1: float, beta_2: float, tau: float) -> None:
        self.rule, self.eta, self.beta_1, self.beta_2, self.tau = rule, eta, beta_1, beta_2, tau
        self.m, self.v = np.zeros(3), np.full(3, tau**2)

    def __call__(self, w: Any, delta: Any) -> Any:
        self.m = self.beta_1 * self.m + (1 - self.beta_1) * delta
        squared = delta**2
        if self.rule == "adagrad":
            self.v = self.v + squared
        elif self.rule == "adam":
            self.v = self.beta_2 * self.v + (1 - self.beta_2) * squared
        else:
            self.v = self.v - (1 - self.beta_2) * squared * np.sign(self.v - squared)
        return w + self.eta * self.m / (np.sqrt(self.v) + self.tau)


class Momentum:
    def __init__(self, rate: float, beta: float) -> None:
        self.rate, self.beta, self.m = rate, beta, np.zeros(3)

    def __call__(self, w: Any, delta: Any) -> Any:
        self.m = self.beta * self.m - delta
        return w - self.rate * self.m


@pytest.mark.parametrize(
    ("strategy", "step"),
    [
        (FedAvgM(server_learning_rate=0.5, server_momentum=0.9), Momentum(0.5, 0.9)),
        (FedAvgM(), Momentum(1.0, 0.0)),
        (FedAdagrad(eta=0.2, tau=1e-2), Adaptive("adagrad", 0.2, 0.0, 0.0, 1e-2)),
        (FedAdam(eta=0.2, beta_1=0.8, beta_2=0.9, tau=1e-2), Adaptive("adam", 0.2, 0.8, 0.9, 1e-2)),
        (FedYogi(eta=0.2, beta_1=0.8, beta_2=0.9, tau=1e-2), Adaptive("yogi", 0.2, 0.8, 0.9, 1e-2)),
    ],
    ids=["fedavgm", "fedavgm-defaults", "fedadagrad", "fedadam", "fedyogi"],
)
def test_steps_of_the_server_are_those_published(strategy: Any, step: Any) -> None:
    for came, due in zip(rounds(strategy), expected(step), strict=True):
        np.testing.assert_allclose(came, due, rtol=2e-5, atol=1e-6)


def test_momentum_without_effect_is_fedavg_to_the_bit() -> None:
    assert [one.tobytes() for one in rounds(FedAvgM())] == [one.tobytes() for one in rounds(FedAvg())]


def test_buffers_are_averaged_and_never_stepped() -> None:
    layer = torch.nn.BatchNorm1d(2)

    def answer(node: int, message: Any) -> Any:
        state = message.content["arrays"].to_torch_state_dict()
        state["running_var"] = torch.full((2,), 0.01 * node)
        state["num_batches_tracked"] = torch.tensor(10 * node)
        state["weight"] = state["weight"] + 1
        return content(ArrayRecord(state), n=1)

    grid = MemoryGrid(3, answer)
    result = FedAdam(eta=1.0).start(grid, ArrayRecord(layer.state_dict()), num_rounds=20)
    np.testing.assert_allclose(plain(result.arrays)["running_var"], [0.02, 0.02], rtol=1e-6)
    assert plain(result.arrays)["num_batches_tracked"] == 10


def test_small_steps_of_a_model_in_half_precision_add_up() -> None:
    def answer(node: int, message: Any) -> Any:
        state = message.content["arrays"].to_torch_state_dict()
        return content(ArrayRecord({"w": state["w"] + torch.tensor(0.01, dtype=torch.bfloat16)}), n=1)

    start = ArrayRecord({"w": torch.ones(1, dtype=torch.bfloat16)})
    result = FedAvgM(server_learning_rate=0.1).start(MemoryGrid(2, answer), start, num_rounds=20)
    assert 1.01 < float(result.arrays.to_torch_state_dict()["w"]) < 1.03, "each step alone would be rounded away"


def test_an_optimiser_goes_on_after_the_app_has_changed_the_arrays() -> None:
    class Halving(FedAvgM):
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            arrays, metrics = super().aggregate_train(server_round, replies)
            assert arrays is not None
            return ArrayRecord({"w": plain(arrays)["w"] / 2}), metrics

    momentum = Momentum(1.0, 0.9)
    due = expected(lambda w, delta: momentum(w, delta) / 2)
    np.testing.assert_allclose(rounds(Halving(server_momentum=0.9))[-1], due[-1], rtol=1e-5)


def test_a_step_needs_the_arrays_that_were_sent() -> None:
    replies = replies_to(FedAvg(), {"w": floats(0)}, [content({"w": floats(1)}, n=1)] * 2)
    with pytest.raises(AggregationError, match="FedAdam moves the arrays that were sent"):
        FedAdam().aggregate_train(1, replies)


def aggregate(strategy: Any, sent: Any, updates: list[Any], **metrics: Any) -> Any:
    answers: list[Any] = [
        one if isinstance(one, Error) else content({"w": one}, n=1, **{k: v[i] for k, v in metrics.items()})
        for i, one in enumerate(updates)
    ]
    arrays, _ = strategy.aggregate_train(1, replies_to(strategy, {"w": sent}, answers))
    return None if arrays is None else plain(arrays)["w"]


RNG = np.random.default_rng(7)
UPDATES = [RNG.standard_normal(40).astype(np.float32) for _ in range(9)]


def krum_order(updates: list[Any], f: int) -> list[int]:
    """The order of the sums of the distances to the nearest others; of equal ones, of those to all others."""
    wide = np.stack(updates).astype(np.float64)
    nearest = np.sort(((wide[:, None] - wide[None]) ** 2).sum(-1), axis=1)[:, 1:]
    scores = nearest[:, : max(len(updates) - f - 2, 1)].sum(1).round(9)
    return sorted(range(len(updates)), key=lambda place: (scores[place], nearest[place].sum()))


def bulyan(updates: list[Any], f: int) -> Any:
    left, chosen = list(updates), []
    while len(chosen) < len(updates) - 2 * f:
        chosen.append(left.pop(krum_order(left, f)[0]))
    ordered = np.sort(np.stack(chosen).astype(np.float64), axis=0)
    distance = np.abs(ordered - np.median(ordered, axis=0))
    nearest = np.argsort(distance, axis=0, kind="stable")[: len(chosen) - 2 * f]
    return np.take_along_axis(ordered, nearest, axis=0).mean(0)


@pytest.mark.parametrize(
    ("strategy", "due"),
    [
        (FedMedian(), np.median(np.stack(UPDATES), axis=0)),
        (FedTrimmedAvg(beta=0.25), np.sort(np.stack(UPDATES), axis=0)[2:-2].mean(0)),
        (Krum(num_malicious_nodes=2), UPDATES[krum_order(UPDATES, 2)[0]]),
        (
            MultiKrum(num_malicious_nodes=2, num_nodes_to_select=4),
            np.mean([UPDATES[place] for place in krum_order(UPDATES, 2)[:4]], axis=0),
        ),
        (Bulyan(num_malicious_nodes=1), bulyan(UPDATES, 1)),
    ],
    ids=["median", "trimmed", "krum", "multikrum", "bulyan"],
)
def test_robust_strategies_are_those_published(strategy: Any, due: Any) -> None:
    np.testing.assert_allclose(aggregate(strategy, np.zeros(40, np.float32), UPDATES), due, rtol=1e-5, atol=1e-6)


def test_krum_tells_small_updates_of_large_weights_apart() -> None:
    """Where distances as |x|^2 + |y|^2 - 2 x y in float32 are noise."""
    rng = np.random.default_rng(0)
    model = (10 * rng.standard_normal(200_000)).astype(np.float32)
    honest = [(model + 1e-3 * rng.standard_normal(200_000)).astype(np.float32) for _ in range(6)]
    near = (sum(one.astype(np.float64) for one in honest) / 6).astype(np.float32)
    far = (model + 4e-3).astype(np.float32)
    chosen = aggregate(Krum(num_malicious_nodes=2), model, [far, *honest, near])
    assert chosen.tobytes() == near.tobytes()


def test_too_few_nodes_for_a_robust_strategy_are_an_error() -> None:
    strategy = Bulyan(num_malicious_nodes=1)
    with pytest.raises(TooFewNodes, match=r"Bulyan needs 7 nodes that train, but a round has 4: run with --nodes 7"):
        strategy.configure_train(1, ArrayRecord({"w": floats(0)}), ConfigRecord(), MemoryGrid(4, lambda *_: Error(0)))


def test_a_round_with_too_few_replies_keeps_the_arrays(caplog: pytest.LogCaptureFixture) -> None:
    updates: list[Any] = [*UPDATES[:4], Error(2, "no")]
    assert aggregate(Krum(num_malicious_nodes=1), np.zeros(40, np.float32), updates) is None
    assert "round 1: the arrays stay as they are: Krum needs 5 updates, there are 4" in caplog.text


@pytest.mark.parametrize("q", [0.0, 1.5])
def test_q_fedavg_is_that_published(q: float) -> None:
    sent, losses, lipschitz = np.zeros(40, np.float32), [0.5, 2.0, 1.0], 1 / 0.1
    deltas = [lipschitz * (sent - one.astype(np.float64)) for one in UPDATES[:3]]
    numerator = sum(loss**q * delta for loss, delta in zip(losses, deltas, strict=True))
    h = sum(
        q * loss ** (q - 1) * (delta**2).sum() + lipschitz * loss**q for loss, delta in zip(losses, deltas, strict=True)
    )
    came = aggregate(QFedAvg(client_learning_rate=0.1, q=q), sent, UPDATES[:3], train_loss=losses)
    np.testing.assert_allclose(came, sent - numerator / h, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: FedTrimmedAvg(beta=0.5), "beta is 0.5; it must be from 0 to below 0.5"),
        (lambda: FedAdam(beta_1=1.0), "beta_1 is 1.0"),
        (lambda: FedAvgM(server_learning_rate=0), "server_learning_rate is 0"),
        (lambda: Krum(num_malicious_nodes=-1), "num_malicious_nodes is -1"),
        (lambda: MultiKrum(num_nodes_to_select=0), "num_nodes_to_select is 0"),
        (lambda: Bulyan(selection_rule=max), "selects by Krum"),
        (lambda: QFedAvg(client_learning_rate=0.1, q=-1), "q is -1"),
        (lambda: FedStrategy("server_functions"), "is a program of its own"),
        (lambda: FedStrategy("fltrust"), r"needs groups of clients \(server\)"),
        (lambda: FedStrategy("fedagv"), "fedavg"),
        (lambda: FedStrategy("fedadam", learning_rate=-1), "learning_rate"),
    ],
)
def test_impossible_settings_are_refused(make: Any, said: str) -> None:
    with pytest.raises(Exception, match=said):
        make()


# ---- every strategy of fedpkg


def test_a_strategy_of_fedpkg_gives_the_bits_of_its_own_class() -> None:
    named = FedStrategy("fedadam", learning_rate=0.2, beta_1=0.8, beta_2=0.9, tau=1e-2)
    own = FedAdam(eta=0.2, beta_1=0.8, beta_2=0.9, tau=1e-2)
    assert [one.tobytes() for one in rounds(named)] == [one.tobytes() for one in rounds(own)]


def test_scaffold_sends_two_sets_and_gets_two() -> None:
    control = {1: floats(1, 0), 2: floats(0, 2)}

    def answer(node: int, message: Any) -> Any:
        sets = message.content.array_records
        assert list(sets) == ["x", "c"]
        reply = content(None, n=1, loss=1.0)
        reply["x"] = ArrayRecord({"w": sets["x"]["w"].numpy() + node - sets["c"]["w"].numpy()})
        reply["dc"] = ArrayRecord({"w": control[node]})
        return reply

    grid = MemoryGrid(2, answer)
    strategy = FedStrategy("scaffold", learning_rate=0.5, fraction_evaluate=0)
    result = strategy.start(grid, ArrayRecord({"w": floats(0, 0)}), num_rounds=2)
    # Round 1: c = 0, x = 0.75, then c = mean dc = (0.5, 1); round 2: x + 0.5 (1.5 - c).
    np.testing.assert_allclose(plain(result.arrays)["w"], [1.25, 1.0], rtol=1e-6)
    assert result.train_metrics_clientapp[2] == {"loss": 1.0}


def test_entry_points_that_apps_lack_are_named_actions(caplog: pytest.LogCaptureFixture) -> None:
    def answer(node: int, message: Any) -> Any:
        assert message.metadata.message_type == "train.gradient"
        assert message.content["config"] == {"server-round": 1, "reply": "gradient"}
        return content({"w": floats(node)}, n=1) if has_action else Error(1, "no train function 'gradient'")

    has_action = True
    strategy = FedStrategy("fedsgd", fraction_evaluate=0)
    result = strategy.start(MemoryGrid(2, answer), ArrayRecord({"w": floats(10)}), num_rounds=1)
    assert plain(result.arrays)["w"] == [8.5]
    has_action = False
    strategy.start(MemoryGrid(2, answer), ArrayRecord({"w": floats(10)}), num_rounds=1)
    assert "0 of 2 replies to 'gradient' are usable; the ClientApp needs @app.train('gradient')" in caplog.text


def test_a_step_may_send_several_messages_to_a_node() -> None:
    """IFCA evaluates the model of each cluster, then each node trains that of its own."""

    def answer(node: int, message: Any) -> Any:
        weights, target = message.content["arrays"]["w"].numpy(), float(node % 2)
        if message.metadata.message_type == "evaluate":
            return content(None, n=1, loss=float(np.abs(weights - target).sum()))
        return content({"w": np.full_like(weights, target)}, n=1, loss=7.0)

    grid = MemoryGrid(4, answer)
    strategy = FedStrategy("ifca", clusters=2, fraction_evaluate=0)
    result = strategy.start(grid, ArrayRecord({"w": floats(0.4, 0.6, 0.5)}), num_rounds=3)
    assert [len(sent) for sent in grid.sent if sent] == [8, 4] * 3
    assert result.train_metrics_clientapp[3] == {"loss": 7.0}, "those of training alone"
    assert sorted(float(one["w"].mean()) for one in strategy.stepping.state["clusters"]) == [0.0, 1.0]


def test_parameters_of_a_strategy_are_in_the_config() -> None:
    grid = MemoryGrid(2, lambda node, message: content(message.content["arrays"], n=1))
    FedStrategy("fedprox", proximal_mu=0.3).start(grid, ArrayRecord({"w": floats(0)}), num_rounds=1)
    assert grid.sent[0][0].content["config"] == {
        "proximal_mu": 0.3,
        "proximal-mu": 0.3,
        "server-round": 1,
    }


def test_transforms_on_the_way_are_refused_and_the_mod_is_named() -> None:
    strategy = FedStrategy("fedavg", transforms=[{"name": "top_k", "share": 0.5}])
    with pytest.raises(Exception, match=r"'fedavg' cannot run in a message app: it has transforms: use .*TransformMod"):
        strategy.start(MemoryGrid(2, lambda *_: Error(0)), ArrayRecord({"w": floats(0)}))


def test_replies_that_messages_do_not_have_are_refused_before_anything_is_sent() -> None:
    class Asking:
        def init(self, seed_model: Weights) -> dict[str, Any]:
            return {"model": seed_model}

        def step(self, state: dict[str, Any], ctx: Any) -> Any:
            yield Request(payload=state["model"], reply_kind=ReplyKind.RECORDS)

    grid = MemoryGrid(2, lambda *_: Error(0))
    strategy = FedStrategy("fedavg")
    strategy._method = Asking()  # type: ignore[assignment]
    with pytest.raises(
        AppExitException, match="cannot run in a message app: it asks for replies of the kind 'records'"
    ):
        strategy.start(grid, ArrayRecord({"w": floats(0)}))
    assert not grid.sent


def test_a_strategy_ends_the_training_itself() -> None:
    pytest.importorskip("dp_accounting")
    grid = MemoryGrid(4, lambda node, message: content(message.content["arrays"], n=1))
    strategy = FedStrategy("dp_fedavg", noise_multiplier=1.0, budget=12.0, fraction_evaluate=0)
    strategy.start(grid, ArrayRecord({"w": floats(0)}), num_rounds=50)
    assert 1 <= len(grid.rounds) < 50
    assert 0 < grid.rounds[-1]["metrics"]["epsilon"] <= 12
