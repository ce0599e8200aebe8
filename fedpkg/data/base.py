"""A client and its data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ClientData:
    """One client and the file or folder that holds its data.

    ``path`` is None for a client without data from fedpkg; ``num_examples`` (training examples) is known only if
    fedpkg has split the data.
    """

    client_id: str
    partition_id: int
    num_partitions: int
    path: Path | None
    num_examples: int | None
