"""Every client's examples are a random draw from the same distribution; sizes differ by at most one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedpkg.errors import DataError
from fedpkg.partitions.base import Indices, Needs, Values
from fedpkg.partitions.bounds import MinExamples
from fedpkg.partitions.dealing import deal
from fedpkg.partitions.draws import Draws
from fedpkg.partitions.schemes import scheme
from fedpkg.partitions.splitting import given_count, sizes_of


@scheme("iid", equation="n_k = n / K, rounded")
@dataclass(frozen=True)
class IidPartitioner:
    """Every client's examples are a random draw from the same distribution; sizes differ by at most one."""

    min_examples: MinExamples = 1

    needs: ClassVar[Needs] = "nothing"

    def split(self, values: Values, num_partitions: int | None, rng: np.random.Generator) -> list[Indices]:
        count = given_count(num_partitions)
        if len(values) // count < self.min_examples:
            raise DataError(
                f"{len(values)} training examples are too few to give each of {count} clients at least "
                f"{self.min_examples}",
                hint=f"lower clients.count (now {count}) or partition.min_examples (now {self.min_examples})",
            )
        return _deal(len(values), count, rng)

    def split_test(
        self, values: Values, rng: np.random.Generator, *, train_values: Values, train: list[Indices]
    ) -> list[Indices]:
        return _deal(len(values), len(train), rng)


def _deal(total: int, num_partitions: int, rng: np.random.Generator) -> list[Indices]:
    sizes = sizes_of(np.ones(num_partitions), total, at_least=0)
    return deal(sizes, Draws(rng).permutation(total), total)
