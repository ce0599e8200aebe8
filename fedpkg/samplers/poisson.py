"""Poisson sampling: each client is drawn independently, as the account of differential privacy assumes."""

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
    equation="P(client k is asked) = q, independently;  q = fraction_train, or count / N",
    paper="Mironov et al. 2019, Rényi Differential Privacy of the Sampled Gaussian Mechanism, arXiv:1908.10530",
)
@dataclass(frozen=True)
class Poisson:
    """Draw each client independently, with the probability ``fraction_train``, so that cohorts differ in size.

    ``count`` is the mean size of a cohort. A round that draws fewer clients than ``round.required`` asks none of them:
    it keeps the model, and the session continues. A strategy that must take its step even then, because it adds noise,
    has the trait ``takes_empty_rounds`` and gets no replies. ``min_clients`` and ``over_selection`` are refused, as
    they change the probabilities. N is the number of clients that may train, whether or not they are available.
    """

    scheme = Scheme.POISSON

    def draw(self, candidates: Candidates, share: float, rng: np.random.Generator) -> Any:
        return (rng.random(len(candidates)) < share).nonzero()[0]
