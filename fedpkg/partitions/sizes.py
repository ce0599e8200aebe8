"""Clients have given numbers of examples, chosen at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, TypeAlias

import numpy as np

from fedpkg.errors import DataError
from fedpkg.partitions.base import Indices, Needs, Values
from fedpkg.partitions.bounds import CountOrZero, Meta, Share
from fedpkg.partitions.dealing import Counts, counts_of, deal
from fedpkg.partitions.draws import Draws
from fedpkg.partitions.schemes import scheme

Sizes: TypeAlias = Annotated[list[CountOrZero | Share], Meta(min_length=1)]


@scheme("sizes", equation="n_k given")
@dataclass(frozen=True)
class SizesPartitioner:
    """Clients have given numbers of training examples, chosen at random; examples beyond their sum are dropped.

    Test examples are divided in the same proportions.

    Args:
        sizes: For each client a whole number of examples (0 for a client without any), or for all of them fractions of
            the dataset, such as [0.5, 0.3, 0.2].
    """

    sizes: Sizes

    needs: ClassVar[Needs] = "nothing"
    tells_count: ClassVar[bool] = True

    def split(self, values: Values, num_partitions: int | None, rng: np.random.Generator) -> list[Indices]:
        sizes = given_sizes(self.sizes, len(values), num_partitions)
        return deal(sizes, Draws(rng).permutation(len(values)), len(values))


def given_sizes(sizes: Sequence[float], total: int, num_partitions: int | None) -> Counts:
    """Whole numbers of examples, from such numbers or from fractions of ``total``.

    Raises:
        DataError: their number is not that of the clients, their sum is too large, or some are numbers and some
            fractions.
    """
    if num_partitions not in (None, len(sizes)):
        raise DataError(
            f"partition.sizes has {len(sizes)} entries, but clients.count is {num_partitions}",
            hint="remove clients.count, or give a size for each client",
        )
    if all(isinstance(size, int) for size in sizes):
        found = np.array(sizes, np.int64)
        if (wanted := int(found.sum())) > total:
            raise DataError(
                f"partition.sizes adds up to {wanted}, but there are {total} training examples",
                hint="lower the sizes, or give fractions of the dataset, such as [0.5, 0.5]",
            )
        if not wanted:
            raise DataError("partition.sizes adds up to 0", hint="give at least one client examples")
        return found
    shares = np.array(sizes, np.float64)
    if not all(isinstance(size, float) or size in (0, 1) for size in sizes) or shares.sum() > 1 + 1e-9:
        raise DataError(
            f"partition.sizes must be whole numbers, or fractions that add up to at most 1, but adds up to "
            f"{shares.sum():g}",
            hint="for example [100, 200, 50] or [0.5, 0.3, 0.2]",
        )
    rest = max(0.0, 1 - shares.sum())
    counts = counts_of(np.append(shares, rest)[None] / (shares.sum() + rest), np.array([total]))[0, :-1]
    if (empty := (counts == 0) & (shares > 0)).any():
        raise DataError(
            f"client {int(empty.argmax())} would have no training example: {shares[empty][0]:g} of {total}",
            hint="raise its fraction in partition.sizes, or set it to 0",
        )
    return np.asarray(counts, np.int64)
