"""Every client's examples are a random draw from the same distribution; sizes differ by at most one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedpkg.data.base import Indices, Labels, by_owner
from fedpkg.errors import DataError


@dataclass(frozen=True)
class IidPartitioner:
    min_examples: int = 1

    def split(self, labels: Labels, num_partitions: int, rng: np.random.Generator) -> list[Indices]:
        if len(labels) // num_partitions < self.min_examples:
            raise DataError(
                f"{len(labels)} training examples are too few to give each of {num_partitions} clients at least "
                f"{self.min_examples}",
                hint=f"lower clients.count (now {num_partitions}) or partition.min_examples (now {self.min_examples})",
            )
        return _deal(len(labels), num_partitions, rng)

    def split_test(
        self, labels: Labels, rng: np.random.Generator, *, train_labels: Labels, train: list[Indices]
    ) -> list[Indices]:
        return _deal(len(labels), len(train), rng)


def _deal(total: int, num_partitions: int, rng: np.random.Generator) -> list[Indices]:
    owner = np.empty(total, np.int64)
    owner[rng.permutation(total)] = np.arange(total) % num_partitions
    return by_owner(owner, num_partitions)
