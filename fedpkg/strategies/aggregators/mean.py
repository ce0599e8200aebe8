"""The mean of the clients' updates, weighted by their numbers of examples: FedAvg."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpkg.strategies.folds import Fold, MeansFold, Term
from fedpkg.strategies.registry import register_aggregator
from fedpkg.strategies.traits import Traits

if TYPE_CHECKING:
    from fedpkg.weights.weights import Weights


@register_aggregator(
    "weighted_mean",
    strategy="fedavg",
    equation="w <- sum_k (n_k / n) w_k,  n = sum_k n_k",
    paper="McMahan et al. 2017, Communication-Efficient Learning of Deep Networks, arXiv:1602.05629",
)
@dataclass(frozen=True)
class WeightedMean:
    """The mean of the clients' models, weighted by their numbers of examples.

    See `fedpkg.weights.fold.MeanFold` for dtypes, order and memory.
    """

    traits = Traits(treatment="mean", only_averages=True)

    def fold(self, model: Weights, start: int = 0) -> Fold[Weights]:
        return MeansFold(model, lambda reply: Term(reply.weights, reply.num_examples), lambda mean: mean.weights, start)
