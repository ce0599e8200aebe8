"""What robust aggregators share: they look at all updates of a round side by side, and stand some attackers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fedpkg.errors import AggregationError
from fedpkg.strategies.base import Reply, State
from fedpkg.strategies.traits import Traits

if TYPE_CHECKING:
    import numpy as np

    from fedpkg.strategies.updates.held import Updates
    from fedpkg.weights.weights import Weights


class RobustAggregator(ABC):
    """An aggregator over updates that are mapped side by side; each client counts once, whatever it says of itself."""

    only_averages = False

    @property
    def traits(self) -> Traits:
        return Traits(treatment="aggregate", needs=self.needs, only_averages=self.only_averages)

    @property
    def needs(self) -> int:
        """The fewest updates that it is defined for."""
        return 1

    @property
    def takes_means(self) -> bool:
        """Whether a mean of several updates is as good to it as an update: not so if it goes by who sent them."""
        return True

    @abstractmethod
    def stands(self, count: int) -> int:
        """How many attackers it stands among so many updates."""

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
            AggregationError: they are fewer than it needs.
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
    """One that keeps something from round to round, or draws."""

    @abstractmethod
    def combine_next(self, updates: Updates, memory: State, rng: np.random.Generator) -> tuple[Weights, State]:
        """Like `combine`; ``memory`` is what the last round returned, at first empty."""

    def combine(self, updates: Updates) -> Weights:
        import numpy as np

        return self.combine_next(updates, {}, np.random.default_rng(0))[0]

    def aggregate_next(
        self, replies: Iterator[Reply], model: Weights, memory: State, rng: np.random.Generator
    ) -> tuple[Weights, State]:
        from fedpkg.strategies.updates.held import Updates

        return self.combine_next(self.enough(Updates(replies, model)), memory, rng)
