"""Clients have numbers of examples with a log-normal distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from fedpkg.partitions.base import Indices, Needs, Values
from fedpkg.partitions.bounds import Meta, MinExamples
from fedpkg.partitions.draws import Draws, exp
from fedpkg.partitions.quantity import deal_by_weight
from fedpkg.partitions.schemes import scheme
from fedpkg.partitions.splitting import given_count


@scheme(
    "log_normal",
    equation="n_k = n s_k / sum_j s_j,  ln s_k ~ N(0, sigma^2)",
    paper="Acar et al. 2021, Federated Learning Based on Dynamic Regularization, arXiv:2111.04263",
)
@dataclass(frozen=True)
class LogNormalPartitioner:
    """Numbers of examples are proportional to draws from a log-normal distribution.

    Clients whose share is below `min_examples` have this number. Examples are chosen at random, so classes are mixed.
    Test examples are divided in the same proportions.

    Args:
        sigma: Standard deviation of the logarithms. 0 gives equal sizes; with 1, a client in six has more than 2.7
            times the median.
    """

    sigma: Annotated[float, Meta(ge=0, le=20)] = 0.5
    min_examples: MinExamples = 1

    needs: ClassVar[Needs] = "nothing"

    def split(self, values: Values, num_partitions: int | None, rng: np.random.Generator) -> list[Indices]:
        draws = Draws(rng)
        logs = self.sigma * draws.normal(given_count(num_partitions))
        return deal_by_weight(exp(logs - logs.max()), len(values), self.min_examples, draws)
