"""The more a client's last reply said that it has to teach, the more often it is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedpkg.registry import FromZeroToOne, NotNegative
from fedpkg.samplers.base import Candidates
from fedpkg.samplers.registry import register_sampler
from fedpkg.samplers.weighted import successively

if TYPE_CHECKING:
    import numpy as np


@register_sampler(
    "importance",
    equation="one after the other, k with P(k) = (1 - e) s_k / sum s_j + e / N, s_k = (metric of k)^exponent",
    paper="after Chen et al. 2020, Optimal Client Sampling for Federated Learning, arXiv:2010.13723, whose weights "
    "correct for the chances; these do not",
)
@dataclass(frozen=True)
class Importance:
    """Draw in proportion to a number that clients report, their loss if nothing else is said.

    ``metric`` is looked for in a client's last reply that counted, then in its last validation; the norm of its update
    will do as well, if the package reports it. Below 0 counts as 0; who has not said it yet counts as the highest.
    ``explore`` (e) is the share of the chances that is dealt out evenly, so that nobody is forgotten for its last word.

    The aggregate is not corrected for the chances (that needs them known, and an aggregator that does not divide by
    the weights that came): the model leans towards those asked more often, as is the purpose.
    """

    metric: str = "loss"
    exponent: NotNegative = 1.0
    explore: FromZeroToOne = 0.1

    def choose(self, candidates: Candidates, number: int, rng: np.random.Generator) -> Any:
        import numpy as np

        said = candidates.metric(self.metric)
        if np.isnan(said).all():
            return successively(np.ones(len(said)), number, rng)
        scores = np.clip(np.where(np.isnan(said), np.nanmax(said), said), 0.0, None)
        chances = np.full(len(said), 1 / len(said))
        if (top := scores.max()) > 0:
            scores = (scores / top) ** self.exponent  # from 0 to 1: no power overflows
            chances = (1 - self.explore) * scores / scores.sum() + self.explore * chances
        return successively(chances, number, rng)
