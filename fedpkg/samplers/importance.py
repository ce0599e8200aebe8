"""Importance sampling: clients with a larger loss, or another metric, are asked more often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedpkg.registry import FromZeroToOne, NotNegative
from fedpkg.samplers.base import Candidates
from fedpkg.samplers.registry import Metric, register_sampler
from fedpkg.samplers.weighted import successively

if TYPE_CHECKING:
    import numpy as np


@register_sampler(
    "importance",
    equation="one after another without replacement, client k with P(k) = (1 - e) s_k / sum_j s_j + e / N,  "
    "s_k = (metric of k)^exponent",
    paper="after Chen et al. 2020, Optimal Client Sampling for Federated Learning, arXiv:2010.13723, whose weights "
    "correct for the probabilities; these do not",
)
@dataclass(frozen=True)
class Importance:
    """Draw clients in proportion to a number that they report, by default their loss.

    A number below 0 counts as 0. A client that has not reported one counts as the highest. The aggregate is not
    corrected for the probabilities, so the model favours the clients that are asked more often, as intended.

    Args:
        exponent: Power of the metric. 0: all clients have the same probability; above 1, high values count more.
        explore: Share e of the probability that all clients get alike, so that each is asked now and then. 0: a client
            whose metric is 0 is not asked again; 1: the choice is uniform.
    """

    metric: Metric = "loss"
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
