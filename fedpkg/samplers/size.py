"""The number of clients to ask."""

from __future__ import annotations

from dataclasses import dataclass

from fedpkg.shares import share_of


@dataclass(frozen=True)
class Size:
    """A share of the clients or their number, at least a minimum, and more clients by over-selection.

    Of N clients, target = min(N, max(min_clients, round(fraction N) or count, 1)), halves rounded up, and
    asked = min(N, target + ceil(over_selection target)), both by the rule of `fedpkg.shares.share_of`.
    """

    fraction: float | None = 1.0
    count: int | None = None  # used instead of the fraction if it is given
    min_clients: int = 1
    over_selection: float = 0.0

    def target(self, total: int) -> int:
        """The number of answers to wait for from ``total`` clients."""
        number = self.count
        if number is None:
            number = share_of(self.fraction or 0.0, total)
        return min(total, max(self.min_clients, number, 1))

    def asked(self, target: int) -> int:
        """The number of clients to ask for ``target`` answers, if there are as many."""
        return target + share_of(self.over_selection, target, "up")

    def share(self, total: int) -> float:
        """The probability of each of ``total`` clients."""
        return self.fraction or 0.0 if self.count is None else min(1.0, self.count / total)
