"""FedNova: clients' steps are normalised by their numbers of local steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpkg.registry import BelowOne
from fedpkg.strategies.base import Reply
from fedpkg.strategies.folds import Fold, Folded, MeansFold, Term
from fedpkg.strategies.registry import register_aggregator
from fedpkg.strategies.traits import Traits
from fedpkg.strategies.weighing import Said

if TYPE_CHECKING:
    from fedpkg.weights.weights import Weights


@register_aggregator(
    "fednova",
    equation="w <- w - t sum_k p_k (w - w_k) / a_k,  t = sum_k p_k a_k,  p_k = n_k / n,  n = sum_k n_k;  a_k = s_k, "
    "with momentum rho: a_k = (s_k - rho (1 - rho^s_k) / (1 - rho)) / (1 - rho)",
    paper="Wang et al. 2020, Tackling the Objective Inconsistency Problem, arXiv:2007.07481",
)
@dataclass(frozen=True)
class FedNova:
    """The mean of steps, each divided by its number of local steps, so that clients with more steps weigh no more.

    Clients report the number s_k in the metadata of their model. An update without it is left out, with a warning in
    the log. Buffers are averaged with the same weights, p_k / a_k.

    Args:
        steps_key: Key in the metadata under which clients report their number of local steps.
        momentum: Momentum rho of the clients' local SGD, which must be the value that the package uses. 0: no momentum.
    """

    steps_key: str = "num_steps"
    momentum: BelowOne = 0.0

    traits = Traits(
        treatment="step", in_trees="above_clients", why_not_in_trees="it needs the number of each client's local steps"
    )

    def fold(self, model: Weights, start: int = 0) -> Fold[Weights]:
        from fedpkg.strategies.steps import moved
        from fedpkg.weights.fold import MIN_WEIGHT

        said = Said(self.steps_key, 1, 1e9, "a number of local steps")

        def term(reply: Reply) -> Term:
            length = self._length(said.of(reply))
            weight = max(reply.num_examples / length, MIN_WEIGHT)
            numbers = {"examples": reply.num_examples, "weights": weight, "lengths": reply.num_examples * length}
            return Term(reply.weights, weight, numbers)

        # The mean m with weights n_k / a_k is such that sum_k p_k (w - w_k) / a_k = (sum_k n_k / a_k) / n (w - m).
        def finish(mean: Folded) -> Weights:
            examples, weights, lengths = (mean.total(name) for name in ("examples", "weights", "lengths"))
            return moved(model, mean.weights, (lengths / examples) * (weights / examples) if examples else 1.0)

        return MeansFold(model, term, finish, start)

    def _length(self, steps: float) -> float:
        """a_k, the 1-norm of the weights with which gradients enter a client's step."""
        rho = self.momentum
        return (steps - rho * (1 - math.pow(rho, steps)) / (1 - rho)) / (1 - rho)
