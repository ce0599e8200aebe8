"""Bulyan: Krum selects updates, and their elements around the median are averaged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpkg.strategies.aggregators.krum import krum_order
from fedpkg.strategies.aggregators.robust import Attackers, RobustAggregator
from fedpkg.strategies.registry import register_aggregator

if TYPE_CHECKING:
    from torch import Tensor

    from fedpkg.strategies.updates.held import Updates
    from fedpkg.weights.weights import Weights


@register_aggregator(
    "bulyan",
    equation="select t = n - 2 f updates by Krum, one after another;  w[i] <- mean of their t - 2 f elements nearest "
    "to their median",
    paper="El Mhamdi et al. 2018, The Hidden Vulnerability of Distributed Learning in Byzantium, arXiv:1802.07927",
    attackers="f = attackers; needs n >= 4 f + 3",
)
@dataclass(frozen=True)
class Bulyan(RobustAggregator):
    """Krum selects n - 2 f updates, and in each coordinate their elements around the median are averaged."""

    attackers: Attackers = 1

    @property
    def needs(self) -> int:
        return 4 * self.attackers + 3

    def stands(self, count: int) -> int:
        return self.attackers if count >= self.needs else 0

    def combine(self, updates: Updates) -> Weights:
        from fedpkg.strategies.updates.distances import squared_distances

        chosen = self._selected(squared_distances(updates))
        kept = len(chosen) - 2 * self.attackers
        selected = updates.grouped([[k] for k in chosen])
        made = selected.made(updates.model.parameters, lambda rows, _: _mean_around_median(rows, kept))
        return updates.with_rest(made)

    def _selected(self, distances: Tensor) -> list[int]:
        left = list(range(len(distances)))
        chosen = []
        for _ in range(len(distances) - 2 * self.attackers):
            chosen.append(left.pop(krum_order(distances[left][:, left], self.attackers)[0]))
        return sorted(chosen)


def _mean_around_median(rows: Tensor, kept: int) -> Tensor:
    """The mean of each column's ``kept`` elements nearest to its median.

    In a sorted column they are neighbours: the window of that size whose farther end is nearest to the median.
    """
    import torch

    from fedpkg.strategies.updates.order import in_order

    count = len(rows)
    ordered = list(in_order(rows, 0, count))
    low, high = (count - 1) // 2, count // 2
    median = ordered[low] if low == high else ordered[low] * 0.5 + ordered[high] * 0.5
    best_mean = best_reach = None
    for start in range(count - kept + 1):
        window = ordered[start : start + kept]
        reach = torch.maximum(median - window[0], window[-1] - median)
        mean = window[0].clone()
        for row in window[1:]:
            mean += row
        mean /= kept
        if best_mean is None or best_reach is None:
            best_mean, best_reach = mean, reach
        else:
            nearer = reach < best_reach
            best_mean = torch.where(nearer, mean, best_mean)
            best_reach = torch.where(nearer, reach, best_reach)
    assert best_mean is not None
    return best_mean
