"""The mean of the clients' updates with equal weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpkg.strategies.folds import Fold, MeansFold, Term
from fedpkg.strategies.registry import register_aggregator
from fedpkg.strategies.traits import Traits

if TYPE_CHECKING:
    from fedpkg.weights.weights import Weights


@register_aggregator("uniform_mean", equation="w <- (1 / n) sum_k w_k")
@dataclass(frozen=True)
class UniformMean:
    """The mean of the clients' models with equal weights, whatever their numbers of examples."""

    traits = Traits(treatment="mean", only_averages=True)

    def fold(self, model: Weights, start: int = 0) -> Fold[Weights]:
        return MeansFold(model, lambda reply: Term(reply.weights), lambda mean: mean.weights, start)
