"""Gradient descent with momentum on the server: FedAvgM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpkg.registry import BelowOne, Positive
from fedpkg.strategies.base import State
from fedpkg.strategies.registry import register_server_optimiser
from fedpkg.strategies.server_optimisers.base import ScheduleName

if TYPE_CHECKING:
    from fedpkg.weights.weights import Weights


@register_server_optimiser(
    "sgd",
    strategy="fedavgm",
    equation="g = w - a;  m <- beta m + g;  w <- w - eta m  (nesterov: w <- w - eta (g + beta m))",
    paper="Hsu et al. 2019, Measuring the Effects of Non-Identical Data Distribution, arXiv:1909.06335",
)
@dataclass(frozen=True)
class Sgd:
    """Gradient descent with momentum, as torch.optim.SGD.

    Args:
        learning_rate: Step size eta of the server. 1 without momentum takes the aggregate as it is (FedAvg); with
            momentum, the total step is up to 1 / (1 - momentum) times as long.
        momentum: Momentum beta of the steps. They add up over about 1 / (1 - beta) rounds; 0: no momentum.
        nesterov: Look ahead by the momentum (Nesterov).
    """

    learning_rate: Positive = 1.0
    momentum: BelowOne = 0.9
    nesterov: bool = False
    schedule: ScheduleName = None

    def __post_init__(self) -> None:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs momentum")

    def step(self, model: Weights, aggregate: Weights, memory: State) -> tuple[Weights, State]:
        from fedpkg.strategies.steps import descended, gradient_of, next_rate

        gradient = gradient_of(model, aggregate)
        rate, count = next_rate(self.learning_rate, self.schedule, memory)
        direction = gradient
        state: State = {"step": count}
        if self.momentum:
            moment = gradient if "momentum" not in memory else memory["momentum"] * self.momentum + gradient
            direction = gradient + self.momentum * moment if self.nesterov else moment
            state["momentum"] = moment
        return descended(model, aggregate, direction, rate), state
