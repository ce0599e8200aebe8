"""LAMB on the server: the direction of Adam, scaled in each tensor to the norm of the tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpkg.strategies.base import State
from fedpkg.strategies.registry import register_server_optimiser
from fedpkg.strategies.server_optimisers.base import (
    Epsilon,
    FirstDecay,
    LearningRate,
    ScheduleName,
    SecondDecay,
    WeightDecay,
)

if TYPE_CHECKING:
    from fedpkg.weights.weights import Weights


@register_server_optimiser(
    "lamb",
    strategy="fedlamb",
    equation="g = w - a;  m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2, both bias-corrected;  "
    "r = m / (sqrt(v) + eps) + lambda w;  w <- w - eta (|w| / |r|) r, tensor by tensor (|w| / |r| = 1 if either is 0)",
    paper="You et al. 2020, Large Batch Optimization for Deep Learning, arXiv:1904.00962, Alg. 2",
)
@dataclass(frozen=True)
class Lamb:
    """Adam whose step in each tensor is in proportion to the tensor's norm."""

    learning_rate: LearningRate = 0.01
    beta_1: FirstDecay = 0.9
    beta_2: SecondDecay = 0.999
    epsilon: Epsilon = 1e-6
    weight_decay: WeightDecay = 0.0
    schedule: ScheduleName = None

    def step(self, model: Weights, aggregate: Weights, memory: State) -> tuple[Weights, State]:
        import torch

        from fedpkg.strategies.steps import descended, gradient_of, next_rate, real_parameters_of
        from fedpkg.weights.weights import Weights

        rate, count = next_rate(self.learning_rate, self.schedule, memory)
        parameters, gradient = real_parameters_of(model), gradient_of(model, aggregate)
        m, v, direction = {}, {}, {}
        for name, g in gradient.items():
            before_m, before_v = (memory["m"][name], memory["v"][name]) if memory else (torch.zeros_like(g),) * 2
            m[name] = self.beta_1 * before_m + (1 - self.beta_1) * g
            v[name] = self.beta_2 * before_v + (1 - self.beta_2) * g * g
            corrected = (v[name] / (1 - self.beta_2**count)).sqrt() + self.epsilon
            ratio = m[name] / (1 - self.beta_1**count) / corrected + self.weight_decay * parameters[name]
            length, long = (torch.linalg.vector_norm(t, dtype=torch.float64) for t in (parameters[name], ratio))
            direction[name] = ratio * float(length / long) if length > 0 and long > 0 else ratio
        stepped = descended(model, aggregate, Weights(direction), rate)
        return stepped, {"step": count, "m": Weights(m), "v": Weights(v)}
