"""A matrix says how much of each class each client gets."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from fedpkg.errors import DataError
from fedpkg.partitions.base import Indices, Needs, Values
from fedpkg.partitions.bounds import Meta, MinExamples, NotNegative
from fedpkg.partitions.dealing import Counts, check_classes, coded, counts_of, deal_classes
from fedpkg.partitions.draws import Draws
from fedpkg.partitions.schemes import scheme


@scheme("distribution", aliases=("matrix",), equation="n_kc = n_c m_kc / sum_j m_jc")
@dataclass(frozen=True)
class DistributionPartitioner:
    """A matrix says how much of each class each client gets.

    It has a row for each client and a column for each class. Columns are the classes in their order (numbers by size,
    text alphabetically). Test examples are divided in the same proportions.

    Args:
        matrix: The rows, or the path of an .npy or .csv file (numbers only, no header) with them.
        unit: `share` divides each class among the clients in proportion to its column, so that all of its examples are
            used. `count` gives exactly these numbers of examples; the others are dropped, and their number is shown.
        matrix_sha256: Digest of the matrix' file. null: that of the file when the session begins.
    """

    matrix: Annotated[list[Annotated[list[NotNegative], Meta(min_length=1)]], Meta(min_length=1)] | str
    unit: Literal["share", "count"] = "share"
    min_examples: MinExamples = 1
    matrix_sha256: str | None = None

    needs: ClassVar[Needs] = "labels"
    tells_count: ClassVar[bool] = True

    @staticmethod
    def completed(section: dict[str, Any]) -> dict[str, Any]:
        """The section with the digest of the file, so that another matrix is another split."""
        if not isinstance(section["matrix"], str):
            return section
        try:
            now = hashlib.sha256(Path(section["matrix"]).read_bytes()).hexdigest()
        except OSError as error:
            raise _unreadable(section["matrix"], error) from error
        if section["matrix_sha256"] not in (None, now):
            raise DataError(
                f"{section['matrix']} is not the matrix with which the session began (sha256 "
                f"{section['matrix_sha256']}, now {now})",
                hint="restore the file, or start a new run",
            )
        return {**section, "matrix_sha256": now}

    def split(self, values: Values, num_partitions: int | None, rng: np.random.Generator) -> list[Indices]:
        check_classes(values, "a partition by a matrix")
        classes, _, sizes = coded(values)
        matrix = self._checked(classes, num_partitions).T
        counts = self._counts(matrix, classes, sizes)
        if (least := int(counts.sum(axis=0).min())) < self.min_examples:
            client = int(counts.sum(axis=0).argmin())
            raise DataError(
                f"partition.matrix gives client {client} only {least} training examples, fewer than "
                f"{self.min_examples}",
                hint=f"raise its row, or lower partition.min_examples (now {self.min_examples})",
            )
        return deal_classes(values, counts, Draws(rng))

    def _checked(self, classes: Values, num_partitions: int | None) -> npt.NDArray[np.float64]:
        matrix = _read(self.matrix) if isinstance(self.matrix, str) else self.matrix
        lengths = {len(row) for row in matrix}
        if len(lengths) > 1:
            raise DataError(f"the rows of partition.matrix have different lengths: {min(lengths)} to {max(lengths)}")
        found = np.array(matrix, np.float64)
        if lengths != {len(classes)}:
            told = ", ".join(map(str, classes[:5])) + (" …" if len(classes) > 5 else "")
            raise DataError(
                f"partition.matrix has {lengths.pop()} columns, but there are {len(classes)} classes ({told})",
                hint="give each client a number for each class",
            )
        if num_partitions not in (None, len(found)):
            raise DataError(
                f"partition.matrix has {len(found)} rows, but clients.count is {num_partitions}",
                hint="remove clients.count, or give a row for each client",
            )
        if not np.isfinite(found).all() or (found < 0).any():
            raise DataError("partition.matrix has a number that is negative or not finite")
        return found

    def _counts(self, matrix: npt.NDArray[np.float64], classes: Values, sizes: Counts) -> Counts:
        totals = matrix.sum(axis=1)
        if self.unit == "share":
            if (nobody := totals == 0).any():
                raise DataError(
                    f"partition.matrix gives class {classes[nobody.argmax()]} to no client",
                    hint="set a number in its column; with unit: count, examples can be left out",
                )
            return counts_of(matrix / totals[:, None], sizes)
        if (matrix != np.rint(matrix)).any():
            raise DataError("partition.matrix has fractions, but unit is count", hint="give whole numbers of examples")
        if (lacks := totals > sizes).any():
            row = int(lacks.argmax())
            raise DataError(
                f"partition.matrix asks for {totals[row]:.0f} examples of class {classes[row]}, which has {sizes[row]}",
                hint="lower the numbers in its column",
            )
        return matrix.astype(np.int64)


def _read(name: str) -> npt.NDArray[np.float64]:
    path = Path(name)
    try:
        if path.suffix == ".npy":
            found = np.load(path, allow_pickle=False)
        else:
            found = np.loadtxt(path, delimiter=",", ndmin=2)
        return np.atleast_2d(np.asarray(found, np.float64))
    except (OSError, ValueError, TypeError) as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> DataError:
    return DataError(
        f"partition.matrix: {name} cannot be read: {getattr(error, 'strerror', None) or error}",
        hint="give an .npy file of numbers, or a .csv file of numbers without a header",
        path=name,
    )
