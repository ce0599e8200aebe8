"""A .safetensors file with the tensors x_train, y_train, x_test and y_test."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from fedpkg.data.sources.base import KEYS, Dataset, FileSource, named
from fedpkg.data.sources.pt import as_numpy
from fedpkg.data.sources.registry import register_dataset
from fedpkg.errors import DataError, ModelFileError

_HINT = f"the file needs the tensors {', '.join(KEYS)} (both test tensors may be absent)"


@register_dataset("safetensors")
@dataclass(frozen=True)
class Safetensors(FileSource):
    """A .safetensors file with the tensors x_train, y_train and, perhaps, x_test and y_test. It is mapped, not read.

    Args:
        path: Path of the file.
        columns: More tensors of the file, with a value for each training example, for `partition.by`.
    """

    columns: Sequence[str] = ()

    def read(self) -> Dataset:
        from fedpkg.formats.mapped import MappedFile
        from fedpkg.formats.safetensors import load_safetensors

        self.check_file()
        try:
            tensors = load_safetensors(MappedFile(self.file, max_bytes=None))
        except ModelFileError as error:
            raise DataError(f"dataset {self.path}: cannot be read: {error.message}", path=self.path) from error
        tests = [f"{name}_test" for name in self.columns]
        if missing := [name for name in self.columns if name not in tensors]:
            raise DataError(f"dataset {self.path}: it has no tensor '{missing[0]}'", hint=_HINT, path=self.path)
        wanted = {key: tensors[key] for key in (*KEYS, *self.columns, *tests) if key in tensors}
        found = named({key: as_numpy(value) for key, value in wanted.items()}, f"dataset {self.path}", _HINT)
        return dataclasses.replace(found, suffix=".safetensors")
