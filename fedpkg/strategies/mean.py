"""The mean of the clients' updates, weighted by their numbers of examples."""

from __future__ import annotations

from collections.abc import Iterator

from fedpkg.strategies.base import Reply
from fedpkg.weights.fold import MeanFold
from fedpkg.weights.weights import Weights


class WeightedMean:
    """w_{t+1} = sum_k (n_k / n) w_k: see `fedpkg.weights.fold.MeanFold` for dtypes, order and memory."""

    def aggregate(self, replies: Iterator[Reply], template: Weights) -> Weights:
        fold = MeanFold(template)
        for reply in replies:
            fold.add(reply.position, reply.weights, reply.num_examples)
        return fold.result()
