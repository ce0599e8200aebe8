"""A .pt file with the tensors x_train, y_train, x_test and y_test."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fedpkg.data.sources.base import KEYS, Dataset, FileSource, named, reason
from fedpkg.data.sources.registry import register_dataset
from fedpkg.errors import DataError

_HINT = "write it with torch.save({'x_train': tensor, …}, path); only tensors are loaded, no other objects"


@register_dataset("pt")
@dataclass(frozen=True)
class Pt(FileSource):
    """A .pt file (`torch.save`) with a dict of the tensors x_train, y_train and, perhaps, x_test and y_test.

    Args:
        path: Path of the file. Only tensors are loaded, never other pickled objects.
        columns: More tensors of the file, with a value for each training example, for `partition.by`.
    """

    columns: Sequence[str] = ()

    def read(self) -> Dataset:
        import torch

        from fedpkg.formats.torch_file import load_torch

        self.check_file()
        path = self.path
        try:
            content = load_torch(self.file)
        except (OSError, ValueError) as error:
            raise DataError(f"dataset {path}: cannot be read: {reason(error)}", hint=_HINT, path=path) from error
        if not isinstance(content, dict):
            raise DataError(f"dataset {path}: contains a {type(content).__name__}, not a dict", hint=_HINT, path=path)
        tests = [f"{name}_test" for name in self.columns]
        arrays = {key: content[key] for key in (*KEYS, *self.columns, *tests) if key in content}
        for key, value in arrays.items():
            if not isinstance(value, torch.Tensor):
                raise DataError(
                    f"dataset {path}: {key} is a {type(value).__name__}, not a tensor", hint=_HINT, path=path
                )
        if missing := [name for name in self.columns if name not in arrays]:
            raise DataError(f"dataset {path}: it has no tensor '{missing[0]}'", hint=_HINT, path=path)
        hint = f"the file needs the keys {', '.join(KEYS)} (both test keys may be absent)"
        found = named({key: as_numpy(value.detach()) for key, value in arrays.items()}, f"dataset {path}", hint)
        return dataclasses.replace(found, suffix=".pt")


def as_numpy(tensor: Any) -> Any:
    """The tensor as an array; itself if NumPy does not have its dtype."""
    try:
        return tensor.numpy()
    except TypeError:
        return tensor
