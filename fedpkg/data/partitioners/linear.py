"""Clients have numbers of examples that grow linearly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedpkg.data.base import Indices, Needs, Values
from fedpkg.data.draws import Draws
from fedpkg.data.partitioners.quantity import deal_by_weight
from fedpkg.data.partitioners.registry import MinExamples, register_partitioner
from fedpkg.data.partitioners.splitting import given_count


@register_partitioner("linear", equation="n_k = n k / sum_j j,  k = 1 .. K")
@dataclass(frozen=True)
class LinearPartitioner:
    """The number of examples of client k is proportional to k: the second client has twice as many as the first.

    Examples are chosen at random, so classes are mixed. Test examples are divided in the same proportions.
    """

    min_examples: MinExamples = 1

    needs: ClassVar[Needs] = "nothing"

    def split(self, values: Values, num_partitions: int | None, rng: np.random.Generator) -> list[Indices]:
        weights = np.arange(1.0, given_count(num_partitions) + 1)
        return deal_by_weight(weights, len(values), self.min_examples, Draws(rng))
