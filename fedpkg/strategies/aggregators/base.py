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
    """Makes one model out of sums over the clients' updates, which can be computed in parts, anywhere.

    Its ``traits`` (`fedpkg.strategies.traits.Traits`) hold its other properties.
    """

    def fold(self, model: Weights, start: int = 0) -> Fold[Weights]:
        """The fold of the replies to the global model ``model``, from a cohort position on; it gives the aggregate.

        If the aggregator's parameters decide whether it can be folded, ``fold`` is a property, which may be None.
        """
        ...


class Aggregator(Protocol):
    """Makes one model out of the clients' updates and needs all of them in one place. ``traits``: as above."""

    def aggregate(self, replies: Iterator[Reply], model: Weights) -> Weights:
        """The aggregate of the replies to the global model ``model``, which come in cohort order.

        Raises:
            AggregationError: no replies, too few of them, or no finite result.
        """
        ...


@runtime_checkable
class RememberingAggregator(Protocol):
    """An aggregator that keeps state from round to round, or draws random numbers."""

    def aggregate_next(
        self, replies: Iterator[Reply], model: Weights, memory: State, rng: np.random.Generator
    ) -> tuple[Weights, State]:
        """Like `Aggregator.aggregate`; ``memory`` is the state from the last round, at first empty."""
        ...
