"""Weighted sampling: clients with more examples are asked more often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedpkg.samplers.base import Candidates
from fedpkg.samplers.registry import register_sampler

if TYPE_CHECKING:
    import numpy as np

    from fedpkg.samplers.base import Column


@register_sampler(
    "weighted", equation="one after another without replacement, P(client k) = n_k / sum of the n_j that are left"
)
@dataclass(frozen=True)
class Weighted:
    """Draw in proportion to the numbers of examples, without replacement.

    Use it with ``round: {weighting: equal}``: large clients count by being asked more often, and the plain mean is
    about the mean over all examples. That is exact for one draw; the larger the cohort, the slower probabilities grow
    with n_k. With ``weighting: examples`` clients count about by n_k^2. A client that has not reported its number of
    examples counts with the mean of the others.
    """

    def choose(self, candidates: Candidates, number: int, rng: np.random.Generator) -> Any:
        return successively(candidates.examples, number, rng)


def successively(weights: Column, number: int, rng: np.random.Generator) -> Any:
    """Indices drawn one after another, each in proportion to the weights that are left; weights of 0 come last.

    The k with the smallest E_k / weight_k, E_k ~ Exp(1), compared by their logarithms   [Efraimidis and Spirakis 2006]
    """
    import numpy as np

    draws = rng.exponential(size=len(weights))
    with np.errstate(divide="ignore"):
        keys = np.log(draws) - np.log(weights)
    return np.lexsort((draws, keys))[:number]
