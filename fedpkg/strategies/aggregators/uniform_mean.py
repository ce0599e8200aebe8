"""The mean of the clients' updates, in which each counts the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpkg.strategies.base import Reply
from fedpkg.strategies.registry import register_aggregator
from fedpkg.strategies.traits import Traits

if TYPE_CHECKING:
    from fedpkg.weights.weights import Weights


@register_aggregator("uniform_mean", equation="w <- (1/n) sum_k w_k", folds=True)
@dataclass(frozen=True)
class UniformMean:
    """The mean of the clients' models; whoever has more examples has no more say."""

    traits = Traits(treatment="mean", only_averages=True)

    def aggregate(self, replies: Iterator[Reply], model: Weights) -> Weights:
        from fedpkg.weights.fold import MeanFold

        fold = MeanFold(model)
        for reply in replies:
            fold.add(reply.position, reply.weights, 1.0)
        return fold.result()
