"""Clients have numbers of examples that grow with the square."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedpkg.data.base import Indices, Needs, Values
from fedpkg.data.draws import Draws
from fedpkg.data.partitioners.quantity import deal_by_weight
from fedpkg.data.partitioners.registry import MinExamples, register_partitioner
from fedpkg.data.partitioners.splitting import given_count


@register_partitioner("square", equation="n_k = n k^2 / sum_j j^2,  k = 1 .. K")
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
