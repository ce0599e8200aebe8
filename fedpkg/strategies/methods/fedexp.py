"""FedExP: the more the clients' updates disagree, the longer the server's step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpkg.registry import NotNegative
from fedpkg.strategies.base import Replies, Reply, Request, State, Step, StepContext
from fedpkg.strategies.folds import Fold, Folded, MeansFold, Term, folded
from fedpkg.strategies.registry import register_asking_strategy
from fedpkg.strategies.traits import Traits

if TYPE_CHECKING:
    from fedpkg.weights.weights import Weights


@register_asking_strategy(
    "fedexp",
    equation="D_i = w - w_i, D = mean D_i;  eta = max(1, sum_i |D_i|^2 / (2 M (|D|^2 + eps)));  w <- w - eta D;  "
    "the model of a round is the mean of the last two w",
    paper="Jhunjhunwala et al. 2023, FedExP: Speeding Up Federated Averaging, arXiv:2301.09604, Alg. 1",
)
@dataclass(frozen=True)
class FedExP:
    """Federated averaging with extrapolated steps, in which all M clients have equal weights.

    The last iterate oscillates, and the paper evaluates the mean of the last two (Section 4). So the model of a round,
    which is validated and kept, is that mean; clients train the iterate itself.

    Args:
        epsilon: Added to |D|^2, in squared units of the weights. It limits the step when updates almost cancel out. 0:
            no limit; a very large value is FedAvg.
    """

    epsilon: NotNegative = 1e-3

    traits = Traits(treatment="step")

    def init(self, seed_model: Weights) -> State:
        return {"model": seed_model, "iterate": seed_model}

    def fold(self, state: State, start: int = 0) -> Fold[Folded]:
        from fedpkg.strategies.steps import gradient_of, squared_norm

        w = state["iterate"]

        def term(reply: Reply) -> Term:
            return Term(reply.weights, numbers={"square": squared_norm(gradient_of(w, reply.weights))})

        return MeansFold(w, term, lambda mean: mean, start)

    def step(self, state: State, ctx: StepContext) -> Step:
        from fedpkg.strategies.steps import descended, gradient_of, parameters_of, squared_norm, with_parameters

        w = state["iterate"]
        replies: Replies = yield Request(payload=w)
        found = folded(self.fold(state), replies)
        mean = found.weights
        direction = gradient_of(w, mean)
        of_mean = squared_norm(direction) + self.epsilon
        eta = max(1.0, found.total("square") / (2 * found.count * of_mean)) if of_mean else 1.0
        last = descended(w, mean, direction, eta) if eta > 1 else mean
        return {"model": with_parameters(last, (parameters_of(w) + parameters_of(last)) / 2), "iterate": last}
