"""The protocol of samplers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Sample:
    """The clients asked in a round, in the order of the given sequence: it fixes their cohort positions.

    ``target`` answers are wanted; under over-selection that is fewer than are asked.
    """

    clients: tuple[str, ...]
    target: int


class Sampler(Protocol):
    """Chooses a cohort."""

    def sample(self, clients: Sequence[str], rng: np.random.Generator) -> Sample:
        """The same clients and the same state of ``rng`` give the same sample."""
        ...
