"""Krum and multi-Krum: the update that is nearest to its neighbours, or the mean of several such updates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpkg.registry import Count
from fedpkg.strategies.aggregators.robust import Attackers, RobustAggregator
from fedpkg.strategies.registry import register_aggregator

if TYPE_CHECKING:
    from torch import Tensor

    from fedpkg.strategies.updates.held import Updates
    from fedpkg.weights.weights import Weights

_PAPER = "Blanchard et al. 2017, Machine Learning with Adversaries, NeurIPS, arXiv:1703.02757"


@register_aggregator(
    "krum",
    equation="w <- the w_k of n with the least sum of |w_k - w_j|^2 over its n - f - 2 nearest j",
    paper=_PAPER,
    attackers="f = attackers; needs n >= 2 f + 3",
)
@dataclass(frozen=True)
class Krum(RobustAggregator):
    """The update with the least distance to its n - f - 2 nearest neighbours; of equals, the first client's."""

    attackers: Attackers = 1

    @property
    def needs(self) -> int:
        return 2 * self.attackers + 3

    def stands(self, count: int) -> int:
        return self.attackers if count >= self.needs else 0

    def combine(self, updates: Updates) -> Weights:
        return _mean_of_nearest(updates, self.attackers, select=1)


@register_aggregator(
    "multi_krum",
    strategy="multikrum",
    equation="w <- mean of the m updates with the least sums of |w_k - w_j|^2 over their n - f - 2 nearest j",
    paper=_PAPER + "; m = n - f - 2: Damaskinos et al. 2019, AggregaThor",
    attackers="f = attackers; needs n >= 2 f + 3",
)
@dataclass(frozen=True)
class MultiKrum(RobustAggregator):
    """The mean of the updates with the least distances to their neighbours, as Krum measures them.

    Args:
        select: Number m of updates to average. 1 is Krum. More updates average out more noise; above n - f, attackers
            are among them for certain. null: n - f - 2.
    """

    attackers: Attackers = 1
    select: Count | None = None

    @property
    def needs(self) -> int:
        return max(2 * self.attackers + 3, self.select or 1)

    def stands(self, count: int) -> int:
        return self.attackers if count >= self.needs else 0

    def combine(self, updates: Updates) -> Weights:
        return _mean_of_nearest(updates, self.attackers, select=self.select or len(updates) - self.attackers - 2)


def _mean_of_nearest(updates: Updates, attackers: int, *, select: int) -> Weights:
    from fedpkg.strategies.updates.distances import squared_distances

    chosen = sorted(krum_order(squared_distances(updates), attackers)[:select])

    def mean(rows: Tensor, _: Tensor) -> Tensor:
        total = rows[chosen[0]].clone()
        for k in chosen[1:]:
            total += rows[k]
        return total / len(chosen)

    return updates.with_rest(updates.made(updates.model.parameters, mean))


def krum_order(distances: Tensor, attackers: int) -> list[int]:
    """Indices of the updates in order of the sum of squared distances to their n - f - 2 nearest others (at least one).

    Two updates that are nearest to each other may have the same sum. Their sums over all others decide, then the index.
    """
    count = len(distances)
    neighbours = min(max(count - attackers - 2, 1), count - 1)
    nearest = distances.sort(dim=1).values  # the first is the distance to itself
    scores = nearest[:, 1 : 1 + neighbours].sum(dim=1).tolist()
    all_others = nearest.sum(dim=1).tolist()
    return sorted(range(count), key=lambda k: (scores[k], all_others[k], k))
