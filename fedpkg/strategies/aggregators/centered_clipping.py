"""Centred clipping: a mean of steps that are clipped around the step of the last round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpkg.registry import Positive, Repeats
from fedpkg.strategies.aggregators.robust import RememberingRobustAggregator
from fedpkg.strategies.base import State
from fedpkg.strategies.registry import register_aggregator

if TYPE_CHECKING:
    import numpy as np

    from fedpkg.strategies.updates.held import Updates
    from fedpkg.weights.weights import Weights


@register_aggregator(
    "centered_clipping",
    equation="d_k = w_k - w;  v <- v + (1/n) sum_k (d_k - v) min(1, tau / |d_k - v|);  w <- w + v",
    paper="Karimireddy et al. 2021, Learning from History for Byzantine Robust Optimization, arXiv:2012.10333",
    attackers="n // 10; one attacker shifts a round by at most tau / n",
)
@dataclass(frozen=True)
class CenteredClipping(RememberingRobustAggregator):
    """The mean of steps, each clipped to a ball around the step of the round before.

    Args:
        max_norm: Radius tau of the ball, an L2 norm over all parameters. Smaller values tolerate stronger attacks, but
            slow down learning. null: the median of the distances |d_k - v|, so that half of the clients are clipped.
        iterations: Number of clipped means in a round, each around the one before. 1 is usual; more help when the last
            round's step is far from the honest ones.
    """

    max_norm: Positive | None = None
    iterations: Repeats = 1

    def stands(self, count: int) -> int:
        return count // 10

    def combine_next(self, updates: Updates, memory: State, rng: np.random.Generator) -> tuple[Weights, State]:
        from fedpkg.strategies.steps import parameters_of
        from fedpkg.strategies.updates.clipping import clipped_mean
        from fedpkg.weights.weights import Weights

        before = parameters_of(updates.model)
        centre = before + memory["step"] if "step" in memory else before
        for _ in range(self.iterations):
            centre = Weights(clipped_mean(updates, centre, self.max_norm))
        return updates.with_rest(centre), {"step": centre - before}
