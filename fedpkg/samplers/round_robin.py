"""Round robin: clients take turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedpkg.samplers.base import Candidates
from fedpkg.samplers.registry import register_sampler
from fedpkg.types import Scheme

if TYPE_CHECKING:
    import numpy as np


@register_sampler("round_robin", equation="the m clients asked in the fewest rounds, equals in the clients' order")
@dataclass(frozen=True)
class RoundRobin:
    """Ask the clients in turns, in their order, without a draw.

    A client that is not available in its turn (``availability``) is asked as soon as it is.
    """

    scheme = Scheme.DATA_FREE

    def choose(self, candidates: Candidates, number: int, rng: np.random.Generator) -> Any:
        return candidates.times_asked.argsort(kind="stable")[:number]
