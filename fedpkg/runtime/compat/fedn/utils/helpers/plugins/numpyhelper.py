"""The helper for lists of NumPy arrays, stored in an npz file under their positions: FEDn's main one since 0.8."""

from __future__ import annotations

import os
import zipfile

import numpy as np

from fedn.utils.helpers.helperbase import HelperBase

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

FILE_TYPES = ("npz", "raw_binary")


def write_npz(file: Any, arrays: Mapping[str, Any]) -> None:
    """Write arrays to an npz file, given as a path or an open file. Like NumPy, it adds ``.npz`` to a path without it.

    FEDn compressed the arrays, which takes most of a round's time and saves little; np.load reads both. Objects are
    refused: they would be pickled, which no reader of models accepts.
    """
    if not hasattr(file, "write"):
        file = os.fspath(file)
        file = file if file.endswith(".npz") else file + ".npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(name + ".npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def write_raw(path: str, arrays: Sequence[Any]) -> None:
    """Write all elements as consecutive float64 values.

    FEDn wrote arrays in their own dtypes but read float64, so others became garbage.
    """
    np.concatenate([np.ravel(array) for array in arrays]).astype(np.float64).tofile(path)


class Helper(HelperBase):
    """For models that are lists of arrays."""

    name = "numpyhelper"

    def increment_average(self, m1: Sequence[Any], m2: Sequence[Any], n: float, N: float) -> list[Any]:
        """``m1 + (n / N) (m2 - m1)``, where ``N`` counts the examples of both.

        The sum uses at least float64: float16 would overflow at ``n (m2 - m1)``, and unsigned integers would wrap.
        """
        self._check_pair(m1, m2)
        return [_averaged(x, y, n / N) for x, y in zip(m1, m2)]

    def add(self, m1: Sequence[Any], m2: Sequence[Any], a: float = 1.0, b: float = 1.0) -> list[Any]:
        """``a m1 + b m2``."""
        self._check_pair(m1, m2)
        return [np.multiply(a, x) + np.multiply(b, y) for x, y in zip(m1, m2)]

    def subtract(self, m1: Sequence[Any], m2: Sequence[Any], a: float = 1.0, b: float = 1.0) -> list[Any]:
        """``a m1 - b m2``."""
        return self.add(m1, m2, a, -b)

    def divide(self, m1: Sequence[Any], m2: Sequence[Any]) -> list[Any]:
        self._check_pair(m1, m2)
        return [np.divide(x, y) for x, y in zip(m1, m2)]

    def multiply(self, m1: Sequence[Any], m2: Sequence[Any]) -> list[Any]:
        self._check_pair(m1, m2)
        return [np.multiply(x, y) for x, y in zip(m1, m2)]

    def sqrt(self, m1: Sequence[Any]) -> list[Any]:
        return [np.sqrt(x) for x in m1]

    def power(self, m1: Sequence[Any], a: float) -> list[Any]:
        return [np.power(x, a) for x in m1]

    def norm(self, m: Sequence[Any]) -> float:
        """The sum of all absolute values (L1)."""
        return float(sum(np.sum(np.abs(x)) for x in m))

    def sign(self, m: Sequence[Any]) -> list[Any]:
        return [np.sign(x) for x in m]

    def ones(self, m1: Sequence[Any], a: float) -> list[Any]:
        """Arrays filled with ``a``."""
        return [np.full_like(x, a) for x in m1]

    def save(self, weights: Sequence[Any], path: str | None = None, file_type: str = "npz") -> str:
        self.check_supported_file_type(file_type)
        path = path or self.get_tmp_path()
        if file_type == "npz":
            write_npz(path, {str(position): array for position, array in enumerate(weights)})
        else:
            write_raw(path, weights)
        return path

    def load(self, path: Any, file_type: str = "npz") -> Any:
        """A list of arrays; for ``raw_binary``, one vector."""
        self.check_supported_file_type(file_type)
        if file_type != "npz":
            return np.fromfile(path, dtype=np.float64)
        with np.load(path, allow_pickle=False) as arrays:
            if set(arrays.files) != {str(position) for position in range(len(arrays.files))}:
                raise KeyError(
                    "%s holds arrays under names (%s …), not under their positions '0', '1' …: it is a model for the "
                    "pytorchhelper" % (path, ", ".join(arrays.files[:3]))
                )
            return [arrays[str(position)] for position in range(len(arrays.files))]

    def check_supported_file_type(self, file_type: str) -> bool:
        if file_type not in FILE_TYPES:
            raise ValueError("File type %r is not supported; these are: %s" % (file_type, ", ".join(FILE_TYPES)))
        return True

    def _check_pair(self, m1: Sequence[Any], m2: Sequence[Any]) -> None:
        shapes = [[np.shape(x) for x in m] for m in (m1, m2)]
        if shapes[0] != shapes[1]:
            raise ValueError("the models differ: their shapes are %s and %s" % tuple(shapes))


def _averaged(x: Any, y: Any, share: float) -> Any:
    """``x + share (y - x)``, in the dtype of ``x`` if possible."""
    x = np.asanyarray(x)
    wide = x.astype(np.result_type(x, np.float64))
    mean = wide + share * (y - wide)
    return mean.astype(x.dtype) if x.dtype.kind in "fc" else mean
