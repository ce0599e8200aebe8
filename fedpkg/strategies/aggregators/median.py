"""The coordinate-wise median of the clients' updates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpkg.strategies.aggregators.robust import RobustAggregator
from fedpkg.strategies.registry import register_aggregator

if TYPE_CHECKING:
    from fedpkg.strategies.updates.held import Updates
    from fedpkg.weights.weights import Weights


@register_aggregator(
    "median",
    strategy="fedmedian",
    equation="w[i] <- median(w_1[i], ..., w_n[i])",
    paper="Yin et al. 2018, Byzantine-Robust Distributed Learning, arXiv:1803.01498, Alg. 1, option I",
    attackers="(n - 1) // 2",
)
@dataclass(frozen=True)
class Median(RobustAggregator):
    """The coordinate-wise median of the updates; for an even number, the mean of the two middle elements."""

    only_averages = True

    def stands(self, count: int) -> int:
        return (count - 1) // 2

    def combine(self, updates: Updates) -> Weights:
        from fedpkg.strategies.updates.held import middle

        return updates.with_rest(updates.made(updates.model.parameters, lambda rows, _: middle(rows)))
