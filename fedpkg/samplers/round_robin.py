"""Clients take turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedpkg.samplers.base import Candidates
from fedpkg.samplers.registry import register_sampler
from fedpkg.types import Scheme

if TYPE_CHECKING:
    import numpy as np


@register_sampler("round_robin", equation="the m with the fewest rounds asked, then the first in the clients' order")
@dataclass(frozen=True)
class RoundRobin:
    """Ask one client after the other, in their order; nothing is drawn.

    Who was not there when its turn came (``availability``) is asked as soon as it is.
    """

    scheme = Scheme.DATA_FREE

    def choose(self, candidates: Candidates, number: int, rng: np.random.Generator) -> Any:
        return candidates.times_asked.argsort(kind="stable")[:number]
