"""A .pt file with the tensors x_train, y_train, x_test and y_test."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar

from fedpkg.data.sources.base import ArraysFile, reason
from fedpkg.data.sources.registry import register_dataset
from fedpkg.errors import DataError

_HINT = "write it with torch.save({'x_train': tensor, …}, path); only tensors are loaded, no other objects"


@register_dataset("pt")
@dataclass(frozen=True)
class Pt(ArraysFile):
    """A .pt file (`torch.save`) with a dict of the tensors x_train, y_train and, perhaps, x_test and y_test.

    Args:
        path: Path of the file. Only tensors are loaded, never other pickled objects.
    """

    suffix: ClassVar[str] = ".pt"

    def arrays(self, wanted: Collection[str]) -> tuple[dict[str, Any], Collection[str]]:
        import torch

        from fedpkg.formats.torch_file import load_torch

        path = self.path
        try:
            content = load_torch(self.file)
        except (OSError, ValueError) as error:
            raise DataError(f"dataset {path}: cannot be read: {reason(error)}", hint=_HINT, path=path) from error
        if not isinstance(content, dict):
            raise DataError(f"dataset {path}: contains a {type(content).__name__}, not a dict", hint=_HINT, path=path)
        found = {key: content[key] for key in wanted if key in content}
        for key, value in found.items():
            if not isinstance(value, torch.Tensor):
                raise DataError(
                    f"dataset {path}: {key} is a {type(value).__name__}, not a tensor", hint=_HINT, path=path
                )
        return {key: as_numpy(value.detach()) for key, value in found.items()}, [str(key) for key in content]


def as_numpy(tensor: Any) -> Any:
    """The tensor as an array; itself if NumPy does not have its dtype."""
    try:
        return tensor.numpy()
    except TypeError:
        return tensor
