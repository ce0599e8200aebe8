"""Clients have numbers of examples that follow a power law: few large clients, many small ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedpkg.partitions.base import Indices, Needs, Values
from fedpkg.partitions.bounds import Amount, MinExamples
from fedpkg.partitions.draws import Draws, exp, log
from fedpkg.partitions.quantity import deal_by_weight
from fedpkg.partitions.schemes import scheme
from fedpkg.partitions.splitting import given_count


@scheme(
    "power_law",
    equation="n_k = n k^-a / sum_j j^-a,  k = 1 .. K",
    paper="Li et al. 2020, Federated Optimization in Heterogeneous Networks, arXiv:1812.06127",
)
@dataclass(frozen=True)
class PowerLawPartitioner:
    """Sizes follow a power law: the k-th client has k^-a times as many examples as the first, the largest.

    Li et al. distribute examples by a power law, as users of real applications have them, but do not give its
    exponent. Examples are chosen at random, so classes are mixed. Test examples are divided in the same proportions.

    Args:
        exponent: The exponent a. With 0.5 the sizes are close to each other; from 1 on, few clients have most examples.
    """

    exponent: Amount = 1.0
    min_examples: MinExamples = 1

    needs: ClassVar[Needs] = "nothing"

    def split(self, values: Values, num_partitions: int | None, rng: np.random.Generator) -> list[Indices]:
        weights = exp(-self.exponent * log(np.arange(1.0, given_count(num_partitions) + 1)))
        return deal_by_weight(weights, len(values), self.min_examples, Draws(rng))
