"""Whole datasets by name, for apps that load a test set beside their partitions."""

from __future__ import annotations

from typing import Any

from fedpkg.apps.federated_data.sources import open_splits
from fedpkg.apps.federated_data.table import DatasetDict, check_split, concatenate


def load_dataset(path: str, name: str | None = None, *, split: str | None = None, **_download: Any) -> Any:
    """The splits of the data that `data.sources` names for a dataset, as a `DatasetDict`.

    Args:
        path: The name of the dataset.
        name: Its subset.
        split: One split, or several that are joined (``train+test``): a `Dataset`.
    """
    splits = DatasetDict(open_splits(path, name))
    if split is None:
        return splits
    parts = [part.strip() for part in split.split("+")]
    for part in parts:
        hint = "a part of one is load_dataset(…)['train'].select(range(100))"
        check_split(splits, part, f"load_dataset: the dataset '{path}'", hint=hint)
    return splits[parts[0]] if len(parts) == 1 else concatenate(splits[part] for part in parts)


def do_nothing(*_args: Any, **_kwargs: Any) -> None:
    """Stands for functions that set what is logged, or whether progress is shown."""
