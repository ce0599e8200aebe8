"""A client's data, and the protocol of partitioners."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Indices: TypeAlias = npt.NDArray[np.int64]
Labels: TypeAlias = npt.NDArray[Any]


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


class Partitioner(Protocol):
    """Divides examples among clients: every index goes to exactly one of them; each client's indices are sorted."""

    def split(self, labels: Labels, num_partitions: int, rng: np.random.Generator) -> list[Indices]:
        """Divide the training examples. Raises DataError if a client would get too few."""
        ...

    def split_test(
        self, labels: Labels, rng: np.random.Generator, *, train_labels: Labels, train: list[Indices]
    ) -> list[Indices]:
        """Divide the test examples to match ``train``, the split of the training examples; parts may be empty."""
        ...


def by_owner(owner: npt.NDArray[Any], num_partitions: int) -> list[Indices]:
    """The sorted indices of every owner 0 … num_partitions - 1."""
    order = np.argsort(owner, kind="stable").astype(np.int64, copy=False)
    ends = np.cumsum(np.bincount(owner, minlength=num_partitions))
    return np.split(order, ends[:-1])
