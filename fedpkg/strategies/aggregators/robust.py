"""The base of robust aggregators, which compare all updates of a round and tolerate some attackers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, TypeAlias

from msgspec import Meta

from fedpkg.errors import AggregationError
from fedpkg.registry import CountOrZero
from fedpkg.strategies.base import Reply, State
from fedpkg.strategies.traits import Traits

if TYPE_CHECKING:
    import numpy as np

    from fedpkg.strategies.updates.held import Updates
    from fedpkg.weights.weights import Weights


Attackers: TypeAlias = Annotated[
    CountOrZero,
    Meta(
        description="Number f of attackers to tolerate among the n clients of a round: the largest number that you "
        "expect. More attackers can move the model; a larger f needs more clients and uses fewer of the honest updates."
    ),
]


class RobustAggregator(ABC):
    """An aggregator over updates that are mapped side by side. Each client counts once, whatever it reports."""

    only_averages = False

    @property
    def traits(self) -> Traits:
        return Traits(treatment="aggregate", needs=self.needs, only_averages=self.only_averages)

    @property
    def needs(self) -> int:
        """The fewest updates for which it is defined."""
        return 1

    @property
    def takes_means(self) -> bool:
        """Whether it can aggregate means of several updates: not if it depends on the clients that sent them."""
        return True

    @abstractmethod
    def stands(self, count: int) -> int:
        """The number of attackers that it tolerates among ``count`` updates."""

    @abstractmethod
    def combine(self, updates: Updates) -> Weights:
        """The next global model.

        Raises:
            AggregationError: there are too few updates, or the result is not finite.
        """

    def aggregate(self, replies: Iterator[Reply], model: Weights) -> Weights:
        from fedpkg.strategies.updates.held import Updates

        return self.combine(self.enough(Updates(replies, model)))

    def enough(self, updates: Updates) -> Updates:
        """The updates themselves.

        Raises:
            AggregationError: there are fewer than it needs.
        """
        if len(updates) < self.needs:
            raise AggregationError(
                f"{type(self).__name__} needs {self.needs} updates, there are {len(updates)}",
                hint="ask more clients (sampler), require more answers (round.required), or expect fewer attackers",
                needed=self.needs,
                updates=len(updates),
            )
        return updates


class RememberingRobustAggregator(RobustAggregator):
    """A robust aggregator that keeps state from round to round, or draws random numbers."""

    @abstractmethod
    def combine_next(self, updates: Updates, memory: State, rng: np.random.Generator) -> tuple[Weights, State]:
        """Like `combine`; ``memory`` is the state from the last round, at first empty."""

    def combine(self, updates: Updates) -> Weights:
        import numpy as np

        return self.combine_next(updates, {}, np.random.default_rng(0))[0]

    def aggregate_next(
        self, replies: Iterator[Reply], model: Weights, memory: State, rng: np.random.Generator
    ) -> tuple[Weights, State]:
        from fedpkg.strategies.updates.held import Updates

        return self.combine_next(self.enough(Updates(replies, model)), memory, rng)
