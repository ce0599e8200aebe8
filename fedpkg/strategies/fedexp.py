"""FedExP: the server's step is as long as the clients' updates disagree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpkg.registry import NotNegative
from fedpkg.strategies.base import Replies, Request, State, Step, StepContext
from fedpkg.strategies.registry import register_asking_strategy

if TYPE_CHECKING:
    from fedpkg.weights.weights import Weights


@register_asking_strategy(
    "fedexp",
    equation="D_i = w - w_i, D = mean D_i;  eta = max(1, sum_i |D_i|^2 / (2 M (|D|^2 + eps)));  w <- w - eta D",
    paper="Jhunjhunwala et al. 2023, FedExP: Speeding Up Federated Averaging, arXiv:2301.09604, Alg. 1",
)
@dataclass(frozen=True)
class FedExP:
    """Federated averaging that extrapolates. All M clients weigh the same.

    The paper evaluates the mean of the last two models; here it is the last.
    """

    epsilon: NotNegative = 1e-3

    treatment = "step"

    def init(self, seed_model: Weights) -> State:
        return {"model": seed_model}

    def step(self, state: State, ctx: StepContext) -> Step:
        from fedpkg.strategies.steps import gradient_of, moved, squared_norm
        from fedpkg.weights.fold import MeanFold

        w = state["model"]
        fold, squares, size = MeanFold(w), 0.0, 0
        replies: Replies = yield Request(payload=w)
        for reply in replies:
            fold.add(reply.position, reply.weights, 1.0)
            squares += squared_norm(gradient_of(w, reply.weights))
            size += 1
        mean = fold.result()
        of_mean = squared_norm(gradient_of(w, mean)) + self.epsilon
        eta = max(1.0, squares / (2 * size * of_mean)) if of_mean else 1.0
        return {"model": moved(w, mean, eta)}
