"""Clients have numbers of examples that grow exponentially."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedpkg.partitions.base import Indices, Needs, Values
from fedpkg.partitions.bounds import Amount, MinExamples
from fedpkg.partitions.draws import Draws, exp
from fedpkg.partitions.quantity import deal_by_weight
from fedpkg.partitions.schemes import scheme
from fedpkg.partitions.splitting import given_count


@scheme("exponential", equation="n_k = n exp(r k) / sum_j exp(r j),  k = 1 .. K")
@dataclass(frozen=True)
class ExponentialPartitioner:
    """The number of examples of client k is proportional to exp(r k): the last client has most of them.

    With r = 1 the last client has 63 % of the examples. All clients whose share is less than one example have
    `min_examples`, so any number of clients works. Examples are chosen at random, so classes are mixed. Test examples
    are divided in the same proportions.

    Args:
        rate: The rate r. Smaller rates give sizes that are closer to each other.
    """

    rate: Amount = 1.0
    min_examples: MinExamples = 1

    needs: ClassVar[Needs] = "nothing"

    def split(self, values: Values, num_partitions: int | None, rng: np.random.Generator) -> list[Indices]:
        weights = exp(self.rate * np.arange(1.0 - given_count(num_partitions), 1))  # divided by the largest
        return deal_by_weight(weights, len(values), self.min_examples, Draws(rng))
