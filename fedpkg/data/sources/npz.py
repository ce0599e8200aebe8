"""An .npz file with x_train, y_train, x_test and y_test."""

from __future__ import annotations

import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fedpkg.data.sources.base import ArraysFile, reason
from fedpkg.data.sources.registry import register_dataset
from fedpkg.errors import DataError
from fedpkg.files import open_regular


@register_dataset("npz")
@dataclass(frozen=True)
class Npz(ArraysFile):
    """An .npz file (`numpy.savez`) with x_train, y_train and, perhaps, x_test and y_test."""

    suffix: ClassVar[str] = ".npz"

    def arrays(self, wanted: Collection[str]) -> tuple[dict[str, Any], Collection[str]]:
        path, hint = self.path, "write it with numpy.savez, from arrays of numbers"
        try:
            # Opened here, because np.load would leave a damaged file open.
            with open_regular(self.file) as raw:
                if not zipfile.is_zipfile(raw):  # otherwise np.load reads it as a pickle, and advises to allow that
                    raise DataError(f"dataset {path}: cannot be read: it is not an npz file", hint=hint, path=path)
                raw.seek(0)
                with np.load(raw, allow_pickle=False) as file:
                    arrays, names = {key: file[key] for key in wanted if key in file}, list(file)
        except DataError:
            raise
        except Exception as error:  # NumPy can raise anything on a damaged file
            raise DataError(f"dataset {path}: cannot be read: {reason(error)}", hint=hint, path=path) from error
        for key, value in arrays.items():
            if not isinstance(value, np.ndarray):  # NumPy returns a member that is not a .npy file as bytes
                raise DataError(f"dataset {path}: cannot be read: {key} is not an array", hint=hint, path=path)
        return arrays, names
