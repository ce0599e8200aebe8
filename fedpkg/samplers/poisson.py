"""Each client is asked by a throw of its own coin: what the accounting of differential privacy assumes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedpkg.samplers.base import Candidates
from fedpkg.samplers.registry import register_sampler
from fedpkg.types import Scheme

if TYPE_CHECKING:
    import numpy as np


@register_sampler(
    "poisson",
    equation="P(k is asked) = q, each for itself;  q = fraction_train, or count / N",
    paper="Mironov et al. 2019, Rényi Differential Privacy of the Sampled Gaussian Mechanism, arXiv:1908.10530",
)
@dataclass(frozen=True)
class Poisson:
    """Draw each client for itself, with the chance ``fraction_train``; ``count`` is how many that makes on average.

    So cohorts differ in size. A round that draws nobody, or fewer than ``round.required``, asks nobody: its model is
    the one before, and the session goes on. A strategy that must take its step even then, because it adds noise, has
    the trait ``takes_empty_rounds`` and gets no replies. ``min_clients`` and ``over_selection`` would change the
    chances: they are refused. N is how many may train, whether or not they are there in a round (``availability``).
    """

    scheme = Scheme.POISSON

    def draw(self, candidates: Candidates, share: float, rng: np.random.Generator) -> Any:
        return (rng.random(len(candidates)) < share).nonzero()[0]
