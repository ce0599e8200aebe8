"""A folder that ``datasets.Dataset.save_to_disk`` wrote (Hugging Face's library). Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedpkg.data.sources.base import Dataset, checked
from fedpkg.data.sources.folders import digest_of_folder, files_below
from fedpkg.data.sources.registry import register_dataset
from fedpkg.errors import DataError, nearest


@register_dataset("saved_dataset")
@dataclass(frozen=True)
class SavedDataset:
    """A folder of `datasets.Dataset.save_to_disk`, or of a DatasetDict with `train` and, perhaps, `test`.

    The library `datasets` must be installed; nothing is downloaded.

    Args:
        path: Path of the folder.
        label: The column of the labels.
        features: The columns of x. null: all columns but the label. A single column keeps its shape.
    """

    path: str
    label: str = "label"
    features: list[str] | None = None

    def files(self) -> list[Path]:
        return files_below(Path(self.path))

    def fingerprint(self) -> str:
        return digest_of_folder(Path(self.path))

    def read(self) -> Dataset:
        source = f"dataset {self.path}"
        if not Path(self.path).is_dir():
            raise DataError(f"{source}: no such folder", path=self.path)
        try:
            from datasets import load_from_disk
        except ImportError as error:
            raise DataError(
                f"{source}: the library 'datasets' is not installed", hint="pip install datasets"
            ) from error
        try:
            found = load_from_disk(self.path)
        except Exception as error:
            raise DataError(f"{source}: cannot be read: {error}", path=self.path) from error
        return arrays_of(found, source, self.label, self.features)


def arrays_of(found: Any, source: str, label: str, features: Sequence[str] | None) -> Dataset:
    """The arrays of a Dataset, or of the splits train and test of a DatasetDict."""
    splits = dict(found) if isinstance(found, dict) else {"train": found}
    if "train" not in splits:
        raise DataError(f"{source}: it has no split 'train'", hint=f"it has: {', '.join(splits)}")
    arrays: dict[str, Any] = {}
    classes: tuple[str, ...] | None = None
    for split in ("train", "test"):
        if split not in splits:
            continue
        table = splits[split]
        chosen = list(features or [name for name in table.column_names if name != label])
        for name in (label, *chosen):
            if name not in table.column_names:
                near = nearest(name, table.column_names)
                raise DataError(f"{source}: it has no column '{name}'{near}", hint=", ".join(table.column_names))
        arrays[f"x_{split}"] = _features(table, chosen, source)
        arrays[f"y_{split}"] = _column(table, label, source)
        names = getattr(table.features[label], "names", None)
        classes = tuple(names) if names else classes
    return Dataset(checked(arrays, source, ""), classes=classes)


def _features(table: Any, names: Sequence[str], source: str) -> Any:
    if len(names) == 1:
        return _column(table, names[0], source)
    return np.stack([_column(table, name, source).astype(np.float32) for name in names], axis=1)


def _column(table: Any, name: str, source: str) -> Any:
    array = np.asarray(table.with_format("numpy")[:][name])
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"{source}: column '{name}' holds {array.dtype}, not numbers of one shape",
            hint="list the features without it",
        )
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise DataError(f"{source}: column '{name}' has missing values", hint="fill the gaps, or leave the rows out")
    return array
