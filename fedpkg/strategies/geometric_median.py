"""The geometric median of the clients' updates (RFA), by the smoothed Weiszfeld algorithm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpkg.registry import Count, Positive
from fedpkg.strategies.registry import register_aggregator
from fedpkg.strategies.robust import RobustAggregator

if TYPE_CHECKING:
    from fedpkg.strategies.held import Updates
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

    It starts from the coordinate-wise median, not from the mean: one huge update then costs no steps. Each step reads
    every update once; it ends when no weight b_k / sum b changes by more than 1e-6.
    """

    steps: Count = 16
    smoothing: Positive = 1e-6  # nu

    def stands(self, count: int) -> int:
        return (count - 1) // 2

    def combine(self, updates: Updates) -> Weights:
        import torch

        from fedpkg.strategies.held import middle, weighted_sum

        names = updates.model.parameters
        weights = None
        for _ in range(self.steps):
            squares = torch.zeros(len(updates), dtype=torch.float64)
            for rows, _model in updates.pieces(names, wide=True):
                point = middle(rows.clone()) if weights is None else weighted_sum(rows, weights)
                rows -= point
                squares += rows.square_().sum(dim=1)
            inverse = 1 / squares.sqrt().clamp_(min=self.smoothing)
            before, weights = weights, inverse / inverse.sum()
            if before is not None and (weights - before).abs().max() < 1e-6:
                break
        assert weights is not None
        final = weights
        return updates.with_rest(updates.made(names, lambda rows, _: weighted_sum(rows, final)))
