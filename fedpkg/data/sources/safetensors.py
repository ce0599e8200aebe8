"""A .safetensors file with the tensors x_train, y_train, x_test and y_test."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar

from fedpkg.data.sources.base import ArraysFile
from fedpkg.data.sources.pt import as_numpy
from fedpkg.data.sources.registry import register_dataset
from fedpkg.errors import DataError, ModelFileError


@register_dataset("safetensors")
@dataclass(frozen=True)
class Safetensors(ArraysFile):
    """A .safetensors file with the tensors x_train, y_train and, perhaps, x_test and y_test. It is mapped, not read."""

    suffix: ClassVar[str] = ".safetensors"

    def arrays(self, wanted: Collection[str]) -> tuple[dict[str, Any], Collection[str]]:
        from fedpkg.formats.mapped import MappedFile
        from fedpkg.formats.safetensors import load_safetensors

        try:
            tensors = load_safetensors(MappedFile(self.file, max_bytes=None))
        except ModelFileError as error:
            raise DataError(f"dataset {self.path}: cannot be read: {error.message}", path=self.path) from error
        return {key: as_numpy(tensors[key]) for key in wanted if key in tensors}, list(tensors)
