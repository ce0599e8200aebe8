"""A dataset whose splits are divided among clients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fedpkg.apps.federated_data.partitioners import SEED, IidPartitioner, Partitioner
from fedpkg.apps.federated_data.preprocessors import Merger
from fedpkg.apps.federated_data.sources import open_splits
from fedpkg.apps.federated_data.table import Dataset, DatasetDict, check_split, seed_of
from fedpkg.errors import FederatedDataError, nearest


class FederatedDataset:
    """The local data that a dataset's name stands for (`data.sources`), divided when a partition is first loaded.

    Args:
        dataset: Its name, such as ``uoft-cs/cifar10``. `data.sources` has an entry for it, or for its last part.
        subset: If `data.sources` has an entry ``cifar10/SUBSET``, that one is used.
        preprocessor: Changes the splits before they are divided; a mapping merges them (`Merger`).
        partitioners: For each split a partitioner, or the number of partitions of equal mixtures.
        shuffle: Whether the rows are put in random order first.
        load_dataset_kwargs: Have no effect: the data are local.
    """

    def __init__(
        self,
        *,
        dataset: str,
        subset: str | None = None,
        preprocessor: Callable[[DatasetDict], Mapping[str, Dataset]] | Mapping[str, tuple[str, ...]] | None = None,
        partitioners: Mapping[str, Partitioner | int],
        shuffle: bool = True,
        seed: int | None = SEED,
        **load_dataset_kwargs: Any,
    ) -> None:
        if not isinstance(dataset, str):
            raise TypeError(f"dataset must be a name, not a {type(dataset).__name__}")
        self._name, self._subset = dataset, subset
        self._preprocessor = Merger(preprocessor) if isinstance(preprocessor, Mapping) else preprocessor
        self._partitioners = {split: _partitioner(split, given) for split, given in partitioners.items()}
        if len({id(one) for one in self._partitioners.values()}) < len(self._partitioners):
            raise FederatedDataError(
                "two splits have the same partitioner",
                hint="a partitioner divides one dataset: make one for each split",
            )
        self._shuffle, self._seed = shuffle, seed
        self._splits: DatasetDict | None = None

    @property
    def partitioners(self) -> dict[str, Partitioner]:
        """The partitioner of each split, with its dataset."""
        for split, partitioner in self._partitioners.items():
            self._give(split, partitioner)
        return self._partitioners

    def load_partition(self, partition_id: int, split: str | None = None) -> Any:
        """One client's rows of a split; of the only split that has a partitioner, if none is named."""
        if split is None:
            if len(self._partitioners) != 1:
                raise FederatedDataError(
                    f"load_partition: partitioners are given for {', '.join(self._partitioners) or 'no split'}",
                    hint="name the split: load_partition(0, 'train')",
                )
            (split,) = self._partitioners
        if split not in self._partitioners:
            raise FederatedDataError(
                f"load_partition: no partitioner is given for the split '{split}'{nearest(split, self._partitioners)}",
                hint=f"FederatedDataset(partitioners={{'{split}': 10}})",
            )
        partitioner = self._partitioners[split]
        self._give(split, partitioner)
        return partitioner.load_partition(partition_id)

    def load_split(self, split: str) -> Dataset:
        """A whole split."""
        splits = self._loaded()
        example = f"{self._name.rpartition('/')[2]}: {{train: PATH, {split}: PATH}}"
        hint = f"name data for another one in data.sources, for example {example}"
        check_split(splits, split, f"the dataset '{self._name}'", hint=hint)
        return splits[split]

    def _give(self, split: str, partitioner: Partitioner) -> None:
        if not partitioner.is_dataset_assigned():
            partitioner.dataset = self.load_split(split)

    def _loaded(self) -> DatasetDict:
        if self._splits is None:
            splits = DatasetDict(open_splits(self._name, self._subset))
            if self._shuffle:
                seed = seed_of(self._seed)
                splits = DatasetDict({name: one.shuffle(seed=seed) for name, one in splits.items()})
            self._splits = splits if self._preprocessor is None else DatasetDict(self._preprocessor(splits))
        return self._splits


def _partitioner(split: str, given: Any) -> Partitioner:
    if isinstance(given, Partitioner):
        return given
    if isinstance(given, (int, np.integer)) and not isinstance(given, bool):
        return IidPartitioner(int(given))
    raise FederatedDataError(
        f"the partitioner of the split '{split}' is a {type(given).__name__}",
        hint="give a Partitioner, or the number of partitions",
    )
