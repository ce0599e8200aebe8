"""Clients differ in their numbers of examples, which a Dirichlet draw gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedpkg.partitions.base import Indices, Needs, Values
from fedpkg.partitions.bounds import Amount, MinExamples
from fedpkg.partitions.draws import Draws
from fedpkg.partitions.quantity import deal_by_weight
from fedpkg.partitions.schemes import scheme
from fedpkg.partitions.splitting import given_count


@scheme(
    "dirichlet_sizes",
    equation="n_k = n q_k,  q ~ Dir_K(alpha)",
    paper="Li et al. 2022, Federated Learning on Non-IID Data Silos: An Experimental Study, arXiv:2102.02079",
)
@dataclass(frozen=True)
class DirichletSizesPartitioner:
    """Dirichlet quantity skew: the smaller alpha, the more the clients' numbers of examples differ.

    Clients whose share is below `min_examples` have this number. (Li et al. draw again until all have it, which never
    ends for many clients and a small alpha.) Examples are chosen at random, so classes are mixed. Test examples are
    divided in the same proportions.

    Args:
        alpha: Concentration of the Dirichlet distribution.
    """

    alpha: Amount = 0.5
    min_examples: MinExamples = 1

    needs: ClassVar[Needs] = "nothing"

    def split(self, values: Values, num_partitions: int | None, rng: np.random.Generator) -> list[Indices]:
        draws = Draws(rng)
        weights = draws.dirichlet(np.full((1, given_count(num_partitions)), self.alpha))[0]
        return deal_by_weight(weights, len(values), self.min_examples, draws)
