"""What robust aggregators share: they look at all updates of a round side by side, and stand some attackers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fedpkg.errors import AggregationError
from fedpkg.strategies.base import Reply

if TYPE_CHECKING:
    from fedpkg.strategies.held import Updates
    from fedpkg.weights.weights import Weights


class RobustAggregator(ABC):
    """An aggregator over updates that are mapped side by side; each client counts once, whatever it says of itself."""

    @property
    def needs(self) -> int:
        """The fewest updates that it is defined for."""
        return 1

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
        from fedpkg.strategies.held import Updates

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
