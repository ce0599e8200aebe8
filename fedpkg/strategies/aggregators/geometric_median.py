"""The geometric median of the clients' updates (RFA), by the smoothed Weiszfeld algorithm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpkg.registry import Positive, Repeats
from fedpkg.strategies.aggregators.robust import RobustAggregator
from fedpkg.strategies.registry import register_aggregator

if TYPE_CHECKING:
    from fedpkg.strategies.updates.held import Updates
    from fedpkg.weights.weights import Weights


@register_aggregator(
    "geometric_median",
    strategy="rfa",
    equation="w <- argmin_z sum_k |z - w_k|:  b_k = 1 / max(nu, |z - w_k|),  z <- sum_k b_k w_k / sum_k b_k",
    paper="Pillutla et al. 2022, Robust Aggregation for Federated Learning, arXiv:1912.13445, Alg. 2",
    attackers="(n - 1) // 2",
)
@dataclass(frozen=True)
class GeometricMedian(RobustAggregator):
    """The point with the least sum of distances to the updates.

    The iteration starts from the coordinate-wise median p, not from the mean, so that one huge update costs neither
    steps nor digits. Every z is a mean of updates, so its distances follow from the products <w_i - p, w_j - p>. The
    updates are read once for these and once for the result, whatever the number of steps.

    Args:
        steps: Largest number of Weiszfeld steps. The iteration stops earlier when it has converged.
        smoothing: Least distance nu in the division, an L2 norm over all parameters. It keeps the weights finite when z
            meets an update. Values as large as the distances give the mean, which tolerates no attackers.
    """

    steps: Repeats = 200
    smoothing: Positive = 1e-6

    def stands(self, count: int) -> int:
        return (count - 1) // 2

    def combine(self, updates: Updates) -> Weights:
        import torch

        from fedpkg.strategies.updates.distances import products
        from fedpkg.strategies.updates.held import middle, weighted_sum

        names = updates.model.parameters
        gram = torch.zeros(len(updates), len(updates), dtype=torch.float64)
        for rows, _model in updates.pieces(names, wide=True):
            rows -= middle(rows.clone())
            gram += products(rows)
        squares = gram.diagonal()  # |w_k - z|^2, at first with z = p
        weights = torch.zeros(len(updates), dtype=torch.float64)
        for _ in range(self.steps):
            inverse = 1 / squares.clamp(min=0).sqrt().clamp(min=self.smoothing)
            before, weights = weights, inverse / inverse.sum()
            if (weights - before).abs().max() < 1e-9:
                break
            towards = gram @ weights
            squares = gram.diagonal() - 2 * towards + weights @ towards
        return updates.with_rest(updates.made(names, lambda rows, _: weighted_sum(rows, weights)))
