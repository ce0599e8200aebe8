"""Adaptive server optimisers as published for federated learning: FedAdagrad, FedAdam, FedYogi.

    D = a - w;  m <- b1 m + (1 - b1) D;  v by the rule of each;  w <- w + eta m / (sqrt(v) + tau)

from m = 0 and v = tau^2 [Reddi et al. 2021, Adaptive Federated Optimization, arXiv:2003.00295, Alg. 2]. Unlike in
torch.optim, moments are not bias-corrected, and v starts at tau^2. `torch` runs the optimisers of torch.optim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpkg.strategies.base import State
from fedpkg.strategies.registry import register_server_optimiser
from fedpkg.strategies.server_optimisers.base import Adaptivity, FirstDecay, LearningRate, ScheduleName, SecondDecay

if TYPE_CHECKING:
    from torch import Tensor

    from fedpkg.strategies.server_optimisers.base import Schedule
    from fedpkg.weights.weights import Weights

_PAPER = "Reddi et al. 2021, Adaptive Federated Optimization, arXiv:2003.00295, Alg. 2"
_MOMENT = "D = a - w;  m <- b1 m + (1 - b1) D;  "
_STEP = ";  w <- w + eta m / (sqrt(v) + tau), from m = 0, v = tau^2"


def _step(optimiser: Adagrad | Adam | Yogi, model: Weights, aggregate: Weights, memory: State) -> tuple[Weights, State]:
    import torch

    from fedpkg.strategies.steps import descended, gradient_of, next_rate
    from fedpkg.weights.weights import Weights

    schedule: Schedule | None = optimiser.schedule
    rate, count = next_rate(optimiser.learning_rate, schedule, memory)
    gradient = gradient_of(model, aggregate)
    m, v, direction = {}, {}, {}
    for name, g in gradient.items():
        before_m = memory["m"][name] if memory else torch.zeros_like(g)
        before_v = memory["v"][name] if memory else torch.full_like(g, optimiser.tau**2)
        m[name] = optimiser.beta_1 * before_m + (1 - optimiser.beta_1) * g
        v[name] = optimiser.second(before_v, g * g)
        direction[name] = m[name] / (v[name].sqrt() + optimiser.tau)
    stepped = descended(model, aggregate, Weights(direction), rate)
    return stepped, {"step": count, "m": Weights(m), "v": Weights(v)}


@register_server_optimiser("adagrad", strategy="fedadagrad", equation=_MOMENT + "v <- v + D^2" + _STEP, paper=_PAPER)
@dataclass(frozen=True)
class Adagrad:
    """Adagrad as published for federated learning; v only grows, so steps become shorter."""

    learning_rate: LearningRate = 0.1
    beta_1: FirstDecay = 0.0
    tau: Adaptivity = 1e-3
    schedule: ScheduleName = None

    def second(self, v: Tensor, squared: Tensor) -> Tensor:
        return v + squared

    step = _step


@register_server_optimiser(
    "adam", strategy="fedadam", equation=_MOMENT + "v <- b2 v + (1 - b2) D^2" + _STEP, paper=_PAPER
)
@dataclass(frozen=True)
class Adam:
    """Adam as published for federated learning, without bias correction."""

    learning_rate: LearningRate = 0.1
    beta_1: FirstDecay = 0.9
    beta_2: SecondDecay = 0.99
    tau: Adaptivity = 1e-3
    schedule: ScheduleName = None

    def second(self, v: Tensor, squared: Tensor) -> Tensor:
        return self.beta_2 * v + (1 - self.beta_2) * squared

    step = _step


@register_server_optimiser(
    "yogi", strategy="fedyogi", equation=_MOMENT + "v <- v - (1 - b2) D^2 sign(v - D^2)" + _STEP, paper=_PAPER
)
@dataclass(frozen=True)
class Yogi:
    """Yogi as published for federated learning; v changes by at most the squared gradient of the step."""

    learning_rate: LearningRate = 0.01
    beta_1: FirstDecay = 0.9
    beta_2: SecondDecay = 0.99
    tau: Adaptivity = 1e-3
    schedule: ScheduleName = None

    def second(self, v: Tensor, squared: Tensor) -> Tensor:
        return v - (1 - self.beta_2) * squared * (v - squared).sign()

    step = _step
