"""Clients differ in a number, such as age or income: examples are sorted by it, more or less strictly, and cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from fedpkg.errors import DataError
from fedpkg.partitions.base import Indices, Needs, Values
from fedpkg.partitions.bounds import FromZeroToOne, MinExamples
from fedpkg.partitions.dealing import Counts, counts_of, deal
from fedpkg.partitions.draws import Draws
from fedpkg.partitions.quantity import check_enough
from fedpkg.partitions.schemes import scheme
from fedpkg.partitions.splitting import given_count, sizes_of


@scheme(
    "continuous", equation="s_i = sigma (x_i - mean(x)) / std(x) + (1 - sigma) e_i,  e_i ~ N(0, 1);  sort by s, cut"
)
@dataclass(frozen=True)
class ContinuousPartitioner:
    """Examples are sorted by a number (the column `by`), and cut into one piece of equal size for each client.

    The test examples are sorted in the same way, and cut in the same proportions.

    Args:
        strictness: The number sigma. With 1 each client has its own range of values; with 0 the split is random. In
            between, a random number is added to each value (both scaled to a standard deviation of 1) before sorting.
    """

    strictness: FromZeroToOne = 1.0
    min_examples: MinExamples = 1

    needs: ClassVar[Needs] = "values"

    def split(self, values: Values, num_partitions: int | None, rng: np.random.Generator) -> list[Indices]:
        count = given_count(num_partitions)
        check_enough(len(values), count, self.min_examples)
        return self._cut(values, sizes_of(np.ones(count), len(values), at_least=0), rng)

    def split_test(
        self, values: Values, rng: np.random.Generator, *, train_values: Values, train: list[Indices]
    ) -> list[Indices]:
        sizes = np.array([len(part) for part in train])
        return self._cut(values, counts_of((sizes / sizes.sum())[None], np.array([len(values)]))[0], rng)

    def _cut(self, values: Values, sizes: Counts, rng: np.random.Generator) -> list[Indices]:
        score = _standardised(values)
        score *= self.strictness
        if self.strictness < 1:
            score += (1 - self.strictness) * Draws(rng).normal(len(score))
        return deal(sizes, order_by(score, np.cumsum(sizes)), len(values))


def order_by(score: npt.NDArray[np.float64], cuts: Counts) -> Indices:
    """The indices in pieces that end at ``cuts``: by rising score, equal ones by index. Within a piece, almost so.

    The first bits of a score and its index are sorted as one whole number, which takes half as long as a stable sort of
    floats. Then scores with equal first bits are put in order, but only those on both sides of a cut.
    """
    index_bits = max(1, len(score) - 1).bit_length()
    mask = np.int64((1 << index_bits) - 1)
    words = (score + 0.0).view(np.int64)  # -0.0 becomes 0.0
    words ^= (words >> 63) & np.int64(2**63 - 1)  # negative floats rise with falling bits
    words &= ~mask
    words |= np.arange(len(score))
    words.sort()
    order: Indices = words & mask
    cuts = cuts[(cuts > 0) & (cuts < len(score))]
    tied = words[cuts][words[cuts - 1] >> index_bits == words[cuts] >> index_bits]
    for first in np.unique(tied & ~mask):
        begin, end = np.searchsorted(words, first), np.searchsorted(words, first | mask, side="right")
        order[begin:end] = order[begin:end][np.argsort(score[order[begin:end]], kind="stable")]
    return order


def _standardised(values: Values) -> npt.NDArray[np.float64]:
    """Mean 0 and standard deviation 1; zeros if all values are equal."""
    if values.ndim != 1 or values.dtype.kind not in "biuf":
        raise DataError(
            f"a continuous partition needs one number per example, but the column has shape {values.shape} and dtype "
            f"{values.dtype}",
            hint="set clients.data.partition.by to a column of numbers",
        )
    numbers = values.astype(np.float64)
    if (is_bad := ~np.isfinite(numbers)).any():
        raise DataError(
            f"{int(is_bad.sum())} of {len(numbers)} values are NaN or infinite, the first that of example "
            f"{int(is_bad.argmax())}",
            hint="remove these examples, or give them a value",
        )
    if len(numbers):
        numbers -= np.cumsum(numbers)[-1] / len(numbers)
        deviation = np.sqrt(np.cumsum(numbers * numbers)[-1] / len(numbers))
        numbers /= deviation or 1.0
    return numbers
