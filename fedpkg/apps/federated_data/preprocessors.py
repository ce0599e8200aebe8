"""Preprocessors: they change the splits of a dataset before it is divided among clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from fedpkg.apps.federated_data.table import Dataset, DatasetDict, check_split, concatenate
from fedpkg.errors import FederatedDataError

Division: TypeAlias = "Mapping[str, float | int]"


class Merger:
    """Joins splits.

    Args:
        merge_config: For each new split the names of those that it consists of, in their order.
    """

    def __init__(self, merge_config: Mapping[str, Sequence[str]]) -> None:
        self._config = {name: tuple(parts) for name, parts in merge_config.items()}

    def __call__(self, dataset: Mapping[str, Dataset]) -> DatasetDict:
        for name, parts in self._config.items():
            for part in parts:
                check_split(dataset, part, f"Merger: '{name}': the dataset")
        return DatasetDict({name: concatenate(dataset[one] for one in parts) for name, parts in self._config.items()})


class Divider:
    """Divides splits into new ones, in the order of their rows.

    Args:
        divide_config: ``{new: fraction or number of rows}``, or for each split such a mapping.
        divide_split: The split that the first form divides; None: the only one.
        drop_remaining_splits: Whether the splits that are not divided are left out.
    """

    def __init__(
        self,
        divide_config: Division | Mapping[str, Division],
        divide_split: str | None = None,
        drop_remaining_splits: bool = False,
    ) -> None:
        self._config, self._split, self._drop = divide_config, divide_split, drop_remaining_splits

    def __call__(self, dataset: Mapping[str, Dataset]) -> DatasetDict:
        config: Any = self._config
        if not all(isinstance(one, Mapping) for one in config.values()):
            if self._split is None and len(dataset) != 1:
                raise FederatedDataError(
                    f"Divider: the dataset has the splits {', '.join(dataset)}", hint="set divide_split to one of them"
                )
            config = {self._split or next(iter(dataset)): config}
        found = {} if self._drop else {name: one for name, one in dataset.items() if name not in config}
        for split, division in config.items():
            check_split(dataset, split, "Divider: the dataset")
            for name, part in zip(division, divide_dataset(dataset[split], list(division.values())), strict=True):
                if name in found:
                    raise FederatedDataError(f"Divider: there would be two splits '{name}'")
                found[name] = part
        return DatasetDict(found)


def concatenate_divisions(partitioner: Any, partition_division: Any, division_id: int | str) -> Dataset:
    """One part of each partition, joined in the order of the partitions, such as the test parts for the server.

    Args:
        partition_division: As ``division`` of `divide_dataset`, for each partition.
        division_id: The position, or the name, of the part.
    """
    partitions = (partitioner.load_partition(number) for number in range(partitioner.num_partitions))
    return concatenate(divide_dataset(one, partition_division)[division_id] for one in partitions)


def divide_dataset(dataset: Dataset, division: Any) -> Any:
    """The parts of a dataset, in the order of its rows: a list or, for a mapping, a `DatasetDict`.

    Args:
        division: Fractions (whose sum is at most 1) or numbers of rows: a list, a tuple, or a mapping from names.
    """
    if isinstance(division, Mapping):
        return DatasetDict(zip(division, divide_dataset(dataset, list(division.values())), strict=True))
    sizes, total = list(division), len(dataset)
    if not sizes or any(isinstance(size, bool) or not isinstance(size, (int, float)) or size < 0 for size in sizes):
        raise FederatedDataError(f"divide_dataset: {division!r:.100} are no fractions or numbers of rows")
    if any(isinstance(size, float) for size in sizes):
        if sum(sizes) > 1 + 1e-9:
            raise FederatedDataError(f"divide_dataset: the fractions {sizes} add up to more than 1")
        ends = np.rint(np.cumsum(sizes) * total).astype(np.int64)
    else:
        ends = np.cumsum(sizes)
        if ends[-1] > total:
            raise FederatedDataError(f"divide_dataset: {sizes} are {ends[-1]} rows, and the dataset has {total}")
    starts = np.concatenate([[0], ends[:-1]])
    return [dataset.select(range(start, end)) for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
