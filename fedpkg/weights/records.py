"""Named sets of tensors with a JSON document, for data other than a model, such as statistics of clients' data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedpkg.types import Json
from fedpkg.weights.weights import Weights


@dataclass(frozen=True, eq=False)
class Records:
    """Any number of named sets of tensors, possibly none, and any JSON. Names are any text; their order is kept.

    The values of tensors are not checked; they may be NaN. Records that are read from a file have no buffers.
    """

    sets: Mapping[str, Weights] = field(default_factory=dict)
    data: Json = None

    @property
    def num_bytes(self) -> int:
        """The size of all tensors in bytes."""
        return sum(weights.num_bytes for weights in self.sets.values())
