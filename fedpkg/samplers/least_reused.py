"""The clients that were asked least often come first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedpkg.samplers.base import Candidates
from fedpkg.samplers.registry import register_sampler
from fedpkg.types import Scheme

if TYPE_CHECKING:
    import numpy as np


@register_sampler("least_reused", equation="the m clients asked in the fewest rounds, drawn among equals")
@dataclass(frozen=True)
class LeastReused:
    """Ask the clients that were asked in the fewest rounds, drawn among equals.

    No client is asked twice before all were asked once. The order differs each time.
    """

    scheme = Scheme.DATA_FREE

    def choose(self, candidates: Candidates, number: int, rng: np.random.Generator) -> Any:
        import numpy as np

        return np.lexsort((rng.random(len(candidates)), candidates.times_asked))[:number]
