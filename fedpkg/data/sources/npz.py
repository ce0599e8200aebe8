"""An .npz file with x_train, y_train, x_test and y_test."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedpkg.data.sources.base import KEYS, Dataset, FileSource, named, reason
from fedpkg.data.sources.registry import register_dataset
from fedpkg.errors import DataError
from fedpkg.files import open_regular

_HINT = f"the file needs the keys {', '.join(KEYS)} (both test keys may be absent)"


@register_dataset("npz")
@dataclass(frozen=True)
class Npz(FileSource):
    """An .npz file (`numpy.savez`) with x_train, y_train and, perhaps, x_test and y_test.

    Args:
        path: Path of the file.
        columns: More arrays of the file, with a value for each training example, for `partition.by`. An array
            `<name>_test` has the values of the test examples.
    """

    columns: Sequence[str] = ()

    def read(self) -> Dataset:
        self.check_file()
        source = f"dataset {self.path}"
        wanted = (*KEYS, *self.columns, *(f"{name}_test" for name in self.columns))
        arrays = _read(self, wanted)
        if missing := [name for name in self.columns if name not in arrays]:
            raise DataError(f"{source}: it has no array '{missing[0]}'", hint=_HINT, path=self.path)
        return named(arrays, source, _HINT)


def _read(source: Npz, wanted: tuple[str, ...]) -> dict[str, Any]:
    path, hint = source.path, "write it with numpy.savez, from arrays of numbers"
    try:
        # Opened here, because np.load would leave a damaged file open.
        with open_regular(source.file) as raw:
            if not zipfile.is_zipfile(raw):  # otherwise np.load reads it as a pickle, and advises to allow that
                raise DataError(f"dataset {path}: cannot be read: it is not an npz file", hint=hint, path=path)
            raw.seek(0)
            with np.load(raw, allow_pickle=False) as file:
                arrays = {key: file[key] for key in wanted if key in file}
    except DataError:
        raise
    except Exception as error:  # NumPy can raise anything on a damaged file
        raise DataError(f"dataset {path}: cannot be read: {reason(error)}", hint=hint, path=path) from error
    for key, value in arrays.items():
        if not isinstance(value, np.ndarray):  # NumPy returns a member that is not a .npy file as bytes
            raise DataError(f"dataset {path}: cannot be read: {key} is not an array", hint=hint, path=path)
    return arrays
