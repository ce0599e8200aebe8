"""Power of choice: of some random candidates, those with the highest loss are asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedpkg.registry import Count
from fedpkg.samplers.base import Candidates
from fedpkg.samplers.registry import Metric, register_sampler
from fedpkg.samplers.weighted import successively

if TYPE_CHECKING:
    import numpy as np


@register_sampler(
    "power_of_choice",
    equation="A = d clients, drawn with P(k) = n_k / n without replacement;  the m of A with the highest loss F_k",
    paper="Cho et al. 2020, Client Selection in Federated Learning: Convergence Analysis and Power-of-Choice Selection "
    "Strategies, arXiv:2010.01243 (rpow-d: losses as last reported)",
)
@dataclass(frozen=True)
class PowerOfChoice:
    """Draw candidates in proportion to their examples, and ask those of them with the highest loss.

    Clients whose loss is not known come first, as in the paper. The paper averages the updates with equal weights:
    ``round: {weighting: equal}``.

    Args:
        candidates: Number d of clients to draw, at least as many as are asked. More candidates speed up learning, but
            favour clients with a high loss. null: twice the number that is asked.
    """

    candidates: Count | None = None
    metric: Metric = "loss"

    def choose(self, candidates: Candidates, number: int, rng: np.random.Generator) -> Any:
        import numpy as np

        d = min(len(candidates), max(number, 2 * number if self.candidates is None else self.candidates))
        drawn = successively(candidates.examples, d, rng)
        losses = candidates.metric(self.metric)[drawn]
        # The sort is stable, so equals stay in the order of the draw.
        return drawn[np.argsort(np.where(np.isnan(losses), -np.inf, -losses), kind="stable")[:number]]
