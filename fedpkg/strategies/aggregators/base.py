"""The protocol of aggregators."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np

    from fedpkg.strategies.base import Reply, State
    from fedpkg.strategies.folds import Fold
    from fedpkg.weights.weights import Weights


class FoldingAggregator(Protocol):
    """Makes one model out of sums over the clients' updates, which can be made in parts, anywhere. What it is besides,
    it says in its ``traits`` (`fedpkg.strategies.traits.Traits`).
    """

    def fold(self, model: Weights, start: int = 0) -> Fold[Weights]:
        """The fold of the replies to the global model ``model``, from a cohort position on; it makes the aggregate.

        An aggregator whose parameters decide whether it can be folded has a property instead, which may be None.
        """
        ...


class Aggregator(Protocol):
    """Makes one model out of the clients' updates, of which it needs all in one place. ``traits``: as above."""

    def aggregate(self, replies: Iterator[Reply], model: Weights) -> Weights:
        """Fold replies to the global model ``model``; they come in cohort order.

        Raises:
            AggregationError: no replies, too few of them, or no finite result.
        """
        ...


@runtime_checkable
class RememberingAggregator(Protocol):
    """An aggregator that keeps something from round to round, or draws."""

    def aggregate_next(
        self, replies: Iterator[Reply], model: Weights, memory: State, rng: np.random.Generator
    ) -> tuple[Weights, State]:
        """Like `Aggregator.aggregate`; ``memory`` is what the last round returned, at first empty."""
        ...
