"""Named sets of tensors with a JSON document: what is sent where there is no model, as statistics of clients' data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedpkg.types import Json
from fedpkg.weights.weights import Weights


@dataclass(frozen=True, eq=False)
class Records:
    """Any number of named sets of tensors, also none, and any JSON. Names are any text; their order is kept.

    Tensors may hold anything, also NaN: nobody looks at their numbers. What comes from a file has no buffers.
    """

    sets: Mapping[str, Weights] = field(default_factory=dict)
    data: Json = None

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(weights.num_bytes for weights in self.sets.values())
