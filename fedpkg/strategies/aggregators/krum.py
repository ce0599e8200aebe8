"""Krum and multi-Krum: the update that is nearest to its neighbours, or the mean of a few such."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpkg.registry import Count, CountOrZero
from fedpkg.strategies.aggregators.robust import RobustAggregator
from fedpkg.strategies.registry import register_aggregator

if TYPE_CHECKING:
    from torch import Tensor

    from fedpkg.strategies.updates.held import Updates
    from fedpkg.weights.weights import Weights

_PAPER = "Blanchard et al. 2017, Machine Learning with Adversaries, NeurIPS, arXiv:1703.02757"


@register_aggregator(
    "krum",
    equation="w <- w_k with the least sum of |w_k - w_j|^2 over its n - f - 2 nearest j",
    paper=_PAPER,
    attackers="f = attackers; needs n >= 2 f + 3",
)
@dataclass(frozen=True)
class Krum(RobustAggregator):
    """The update that is nearest to its n - f - 2 nearest; of equals that of the first client."""

    attackers: CountOrZero = 1

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
    """The mean of the `select` best updates by Krum's sums; by default of n - f - 2."""

    attackers: CountOrZero = 1
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
    """Updates by the sum of squared distances to their n - f - 2 nearest others (at least one), the least first.

    Two that are nearest to each other may have the same sum: then that to all others counts, then who is first.
    """
    count = len(distances)
    neighbours = min(max(count - attackers - 2, 1), count - 1)
    nearest = distances.sort(dim=1).values  # the first is the distance to itself
    scores = nearest[:, 1 : 1 + neighbours].sum(dim=1).tolist()
    all_others = nearest.sum(dim=1).tolist()
    return sorted(range(count), key=lambda k: (scores[k], all_others[k], k))
