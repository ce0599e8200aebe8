"""Clients have numbers of examples that grow with the square."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedpkg.partitions.base import Indices, Needs, Values
from fedpkg.partitions.bounds import MinExamples
from fedpkg.partitions.draws import Draws
from fedpkg.partitions.quantity import deal_by_weight
from fedpkg.partitions.schemes import scheme
from fedpkg.partitions.splitting import given_count


@scheme("square", equation="n_k = n k^2 / sum_j j^2,  k = 1 .. K")
@dataclass(frozen=True)
class SquarePartitioner:
    """The number of examples of client k is proportional to k²: the second client has four times as many as the first.

    Examples are chosen at random, so classes are mixed. Test examples are divided in the same proportions.
    """

    min_examples: MinExamples = 1

    needs: ClassVar[Needs] = "nothing"

    def split(self, values: Values, num_partitions: int | None, rng: np.random.Generator) -> list[Indices]:
        weights = np.arange(1.0, given_count(num_partitions) + 1) ** 2
        return deal_by_weight(weights, len(values), self.min_examples, Draws(rng))
