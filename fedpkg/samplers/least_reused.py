"""Who was asked least often comes first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedpkg.samplers.base import Candidates
from fedpkg.samplers.registry import register_sampler
from fedpkg.types import Scheme

if TYPE_CHECKING:
    import numpy as np


@register_sampler("least_reused", equation="the m with the fewest rounds asked, drawn among equals")
@dataclass(frozen=True)
class LeastReused:
    """Ask those who were asked in the fewest rounds; among equals, draw.

    Nobody is asked twice before all were asked once, in an order that differs from time to time.
    """

    scheme = Scheme.DATA_FREE

    def choose(self, candidates: Candidates, number: int, rng: np.random.Generator) -> Any:
        import numpy as np

        return np.lexsort((rng.random(len(candidates)), candidates.times_asked))[:number]
