"""Uniform sampling: all clients have the same probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedpkg.samplers.base import Candidates
from fedpkg.samplers.registry import register_sampler
from fedpkg.types import Scheme

if TYPE_CHECKING:
    import numpy as np


@register_sampler("uniform", equation="P(client k is asked) = m / N")
@dataclass(frozen=True)
class Uniform:
    """Draw uniformly without replacement, which is the default."""

    scheme = Scheme.WITHOUT_REPLACEMENT

    def choose(self, candidates: Candidates, number: int, rng: np.random.Generator) -> Any:
        return rng.choice(len(candidates), size=number, replace=False, shuffle=False)
