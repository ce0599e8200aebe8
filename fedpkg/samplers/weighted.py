"""The more examples a client has, the more often it is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedpkg.samplers.base import Candidates
from fedpkg.samplers.registry import register_sampler

if TYPE_CHECKING:
    import numpy as np

    from fedpkg.samplers.base import Column


@register_sampler("weighted", equation="one after the other, k of those left with P(k) = n_k / sum of their n_j")
@dataclass(frozen=True)
class Weighted:
    """Draw in proportion to the numbers of examples, without replacement.

    It goes with ``round: {weighting: equal}``: big clients count by being asked more often, and the plain mean is then
    about the mean over all examples (exactly so for one draw; without replacement, chances grow a little slower than
    n_k, the more of the clients are asked the more). Under ``weighting: examples`` they count twice, about by n_k^2.
    Who never said its number of examples counts as one with as many as the others have on average.
    """

    def choose(self, candidates: Candidates, number: int, rng: np.random.Generator) -> Any:
        return successively(candidates.examples, number, rng)


def successively(weights: Column, number: int, rng: np.random.Generator) -> Any:
    """Places drawn one after the other, each time in proportion to the weights of those left; zeros come last.

    The k with the smallest E_k / weight_k, E_k ~ Exp(1), compared by their logarithms   [Efraimidis and Spirakis 2006]
    """
    import numpy as np

    draws = rng.exponential(size=len(weights))
    with np.errstate(divide="ignore"):
        keys = np.log(draws) - np.log(weights)
    return np.lexsort((draws, keys))[:number]
