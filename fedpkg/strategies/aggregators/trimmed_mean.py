"""The trimmed mean: the coordinate-wise mean without the largest and smallest elements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import msgspec

from fedpkg.registry import CountOrZero
from fedpkg.shares import share_of
from fedpkg.strategies.aggregators.robust import RobustAggregator
from fedpkg.strategies.registry import register_aggregator

if TYPE_CHECKING:
    from torch import Tensor

    from fedpkg.strategies.updates.held import Updates
    from fedpkg.weights.weights import Weights


@register_aggregator(
    "trimmed_mean",
    strategy="fedtrimmedavg",
    equation="w[i] <- mean of w_1[i], ..., w_n[i] without the k largest and the k smallest,  k = floor(beta n) or f",
    paper="Yin et al. 2018, Byzantine-Robust Distributed Learning, arXiv:1803.01498, Alg. 1, option II",
    attackers="floor(beta n), or f = attackers, which needs n >= 2 f + 1",
)
@dataclass(frozen=True)
class TrimmedMean(RobustAggregator):
    """The coordinate-wise mean without a share of the elements at either end.

    Args:
        beta: Share of the elements to cut off at each end, below 0.5. It should be at least the share of attackers that
            you expect; 0 is the uniform mean.
        attackers: Number f of elements to cut off at each end, instead of `beta`. null: `beta` decides.
        leeway: Rounding error allowed in beta n. A product that is less than this below a whole number counts as that
            number, such as one of a beta that a program computed as f / n.
    """

    beta: Annotated[float, msgspec.Meta(ge=0, lt=0.5)] = 0.2
    attackers: CountOrZero | None = None
    leeway: Annotated[float, msgspec.Meta(ge=0, lt=0.5)] = 1e-9

    only_averages = True

    @property
    def needs(self) -> int:
        return 1 if self.attackers is None else 2 * self.attackers + 1

    def stands(self, count: int) -> int:
        if self.attackers is not None:
            return self.attackers if count >= self.needs else 0
        return share_of(self.beta, count, "down", leeway=self.leeway)

    def combine(self, updates: Updates) -> Weights:
        from fedpkg.strategies.updates.order import in_order

        count = len(updates)
        trimmed = self.stands(count)

        def mean(rows: Tensor, _: Tensor) -> Tensor:
            kept = in_order(rows, trimmed, count - trimmed)
            total = kept[0].clone()
            for row in kept[1:]:  # in order of size, so that the order of clients changes no bit
                total += row
            return total / len(kept)

        return updates.with_rest(updates.made(updates.model.parameters, mean))
