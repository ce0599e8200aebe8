"""FedNova: clients' steps are normalised by how many local steps they took."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpkg.registry import BelowOne
from fedpkg.strategies.base import Reply
from fedpkg.strategies.registry import register_aggregator
from fedpkg.strategies.traits import Traits
from fedpkg.strategies.weighing import Said, with_numbers

if TYPE_CHECKING:
    from fedpkg.weights.weights import Weights


@register_aggregator(
    "fednova",
    equation="w <- w - t sum_k p_k (w - w_k) / a_k,  t = sum_k p_k a_k,  p_k = n_k / n;  a_k = s_k, with momentum "
    "rho: (s_k - rho (1 - rho^s_k) / (1 - rho)) / (1 - rho)",
    paper="Wang et al. 2020, Tackling the Objective Inconsistency Problem, arXiv:2007.07481",
    folds=True,
)
@dataclass(frozen=True)
class FedNova:
    """The mean of steps that are normalised by the number of local steps, so that who takes more has no more say.

    Clients put that number (s_k) into the metadata beside their model, under ``steps_key``; who does not is left out,
    and the log says so. ``momentum`` is that of
    their local optimiser. Buffers are averaged with the same weights, p_k / a_k.
    """

    steps_key: str = "num_steps"
    momentum: BelowOne = 0.0

    traits = Traits(treatment="step")

    def aggregate(self, replies: Iterator[Reply], model: Weights) -> Weights:
        from fedpkg.strategies.steps import moved
        from fedpkg.weights.fold import MIN_WEIGHT, MeanFold

        said = Said(self.steps_key, 1, 1e9, "a number of local steps")

        # The mean m with weights n_k / a_k is such that sum_k p_k (w - w_k) / a_k = (sum_k n_k / a_k) / n (w - m).
        fold = MeanFold(model)
        examples = weights = lengths = 0.0
        for reply, steps in with_numbers(replies, said.of):
            length = self._length(steps)
            weight = max(reply.num_examples / length, MIN_WEIGHT)
            fold.add(reply.position, reply.weights, weight)
            examples += reply.num_examples
            weights += weight
            lengths += reply.num_examples * length
        return moved(model, fold.result(), (lengths / examples) * (weights / examples) if examples else 1.0)

    def _length(self, steps: float) -> float:
        """a_k, the 1-norm of the weights with which gradients enter a client's step."""
        rho = self.momentum
        return (steps - rho * (1 - math.pow(rho, steps)) / (1 - rho)) / (1 - rho)
