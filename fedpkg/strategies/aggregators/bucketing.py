"""Bucketing: a robust aggregator over means of a few updates each, which differ less than the updates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from fedpkg.registry import Count, Part
from fedpkg.strategies.aggregators.robust import RememberingRobustAggregator, RobustAggregator
from fedpkg.strategies.base import State
from fedpkg.strategies.registry import register_aggregator

if TYPE_CHECKING:
    import numpy as np

    from fedpkg.strategies.updates.held import Updates
    from fedpkg.weights.weights import Weights


@dataclass(frozen=True)
class Bucketing(RememberingRobustAggregator):
    """Draws new buckets of ``size`` updates in every round; the last one may be smaller."""

    inner: RobustAggregator
    size: int = 2

    @property
    def needs(self) -> int:
        return (self.inner.needs - 1) * self.size + 1

    @property
    def takes_means(self) -> bool:
        return False

    def stands(self, count: int) -> int:
        return self.inner.stands(-(-count // self.size))

    def combine_next(self, updates: Updates, memory: State, rng: np.random.Generator) -> tuple[Weights, State]:
        drawn = rng.permutation(len(updates)).tolist()
        buckets = updates.grouped([drawn[at : at + self.size] for at in range(0, len(drawn), self.size)])
        if isinstance(self.inner, RememberingRobustAggregator):
            return self.inner.combine_next(buckets, memory, rng)
        return self.inner.combine(buckets), {}


@register_aggregator(
    "bucketing",
    equation="w <- inner(means of ceil(n / s) random buckets of s updates each)",
    paper="Karimireddy et al. 2022, Byzantine-Robust Learning on Heterogeneous Datasets, arXiv:2006.09365",
    attackers="as many as inner tolerates among ceil(n / s)",
)
def bucketing(inner: Annotated[Any, Part("aggregator")] = "median", size: Count = 2) -> Bucketing:
    """A robust aggregator over the means of small random groups of updates, for clients whose data differ.

    Args:
        inner: The robust aggregator of the means, such as median, krum or geometric_median.
        size: Number s of updates in a bucket. 2 is the paper's choice. Larger buckets differ less, but tolerate fewer
            attackers; 1 is the inner aggregator alone.
    """
    if not isinstance(inner, RobustAggregator):
        raise ValueError("inner must be a robust aggregator, one that sees all updates: median, krum …")
    if not inner.takes_means:
        raise ValueError("inner must be an aggregator that accepts means of several updates: median, krum …")
    return Bucketing(inner, size)
