"""Of some candidates, those with the highest loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedpkg.registry import Count
from fedpkg.samplers.base import Candidates
from fedpkg.samplers.registry import register_sampler
from fedpkg.samplers.weighted import successively

if TYPE_CHECKING:
    import numpy as np


@register_sampler(
    "power_of_choice",
    equation="A = d clients, drawn by n_k without replacement;  the m of A with the highest F_k",
    paper="Cho et al. 2020, Client Selection in Federated Learning: Convergence Analysis and Power-of-Choice Selection "
    "Strategies, arXiv:2010.01243 (rpow-d: losses as last reported)",
)
@dataclass(frozen=True)
class PowerOfChoice:
    """Draw candidates in proportion to their examples, and ask those of them with the highest loss.

    ``candidates`` (d) are so many, never fewer than are asked; without it, twice as many. The more, the quicker it
    learns and the more it leans towards clients with a high loss. ``metric`` is the name of the loss in a client's last
    reply that counted, or else in its last validation. Whose loss is not known comes first, as in the paper.
    The paper averages the updates with equal weights: ``round: {weighting: equal}``.
    """

    candidates: Count | None = None
    metric: str = "loss"

    def choose(self, candidates: Candidates, number: int, rng: np.random.Generator) -> Any:
        import numpy as np

        d = min(len(candidates), max(number, 2 * number if self.candidates is None else self.candidates))
        drawn = successively(candidates.examples, d, rng)
        losses = candidates.metric(self.metric)[drawn]
        # As they were drawn, among equals: argsort is stable.
        return drawn[np.argsort(np.where(np.isnan(losses), -np.inf, -losses), kind="stable")[:number]]
