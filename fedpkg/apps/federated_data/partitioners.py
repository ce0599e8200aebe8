"""Partitioners: each divides a dataset among clients by a scheme of `fedpkg.partitions`.

They have the names and parameters of flwr-datasets. Every scheme draws its examples with its seed, also those that take
contiguous blocks there, so a partition of sorted data is no block of one class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fedpkg.apps.federated_data.table import Dataset, names_of, seed_of
from fedpkg.errors import DataError, FederatedDataError
from fedpkg.partitions.base import Indices, Values
from fedpkg.partitions.continuous import ContinuousPartitioner as _Continuous
from fedpkg.partitions.dealing import coded, counts_of
from fedpkg.partitions.dirichlet import DirichletPartitioner as _Dirichlet
from fedpkg.partitions.distribution import DistributionPartitioner as _Distribution
from fedpkg.partitions.draws import Draws
from fedpkg.partitions.grouped_ids import GroupedIdsPartitioner as _GroupedIds
from fedpkg.partitions.iid import IidPartitioner as _Iid
from fedpkg.partitions.inner_dirichlet import InnerDirichletPartitioner as _InnerDirichlet
from fedpkg.partitions.natural_id import NaturalIdPartitioner as _NaturalId
from fedpkg.partitions.pathological import PathologicalPartitioner as _Pathological
from fedpkg.partitions.quantity import deal_by_weight
from fedpkg.partitions.shards import ShardsPartitioner as _Shards
from fedpkg.partitions.sizes import SizesPartitioner as _Sizes
from fedpkg.partitions.splitting import split_examples
from fedpkg.partitions.vertical import VerticalPartitioner as _Vertical

SEED = 42

# The schemes' words in their errors, and what an app's author calls the same.
_WORDS = (
    ("clients.data.partition.", ""),
    ("partition.", ""),
    ("clients.count", "num_partitions"),
    ("classes_per_client", "num_classes_per_partition"),
    ("shards_per_client", "num_shards_per_partition"),
    ("min_examples", "min_partition_size"),
    ("training examples", "examples"),
    ("clients", "partitions"),
    ("client", "partition"),
)


class Partitioner(ABC):
    """Divides one dataset: set ``dataset`` once, then load partitions."""

    def __init__(self) -> None:
        self._dataset: Any = None

    @property
    def dataset(self) -> Any:
        if self._dataset is None:
            raise AttributeError(
                "the partitioner has no dataset yet: give it to a FederatedDataset, or set partitioner.dataset"
            )
        return self._dataset

    @dataset.setter
    def dataset(self, dataset: Any) -> None:
        if self._dataset is not None:
            raise FederatedDataError(
                "the partitioner has a dataset already", hint="make a partitioner for each dataset and split"
            )
        if not (hasattr(dataset, "select") and hasattr(dataset, "column_names")):
            raise TypeError(
                f"a partitioner divides a Dataset, not a {type(dataset).__name__}; make one: "
                "fedpkg.apps.federated_data.Dataset.from_dict({'x': …, 'label': …})"
            )
        self._dataset = dataset

    def is_dataset_assigned(self) -> bool:
        return self._dataset is not None

    @abstractmethod
    def load_partition(self, partition_id: int) -> Any:
        """The rows (or columns) of one partition, as a dataset."""

    @property
    @abstractmethod
    def num_partitions(self) -> int:
        """The number of partitions."""


class _ByRows(Partitioner):
    """Base of partitioners that divide the rows, by a scheme."""

    def __init__(
        self,
        scheme: Any,
        num_partitions: int | None,
        *,
        partition_by: str | None = None,
        shuffle: bool = False,
        seed: int | None = SEED,
    ) -> None:
        super().__init__()
        if num_partitions is not None and (isinstance(num_partitions, bool) or num_partitions < 1):
            raise FederatedDataError(f"num_partitions is {num_partitions}; it must be a whole number from 1")
        self._scheme, self._count, self._by = scheme, num_partitions, partition_by
        self._shuffle = shuffle
        self._seed = seed_of(seed)
        self._parts: list[Indices] | None = None

    def load_partition(self, partition_id: int) -> Any:
        return self.dataset.select(self.indices(partition_id))

    @property
    def num_partitions(self) -> int:
        return len(self._divided()) if self._count is None else self._count

    @property
    def partition_id_to_indices(self) -> dict[int, list[int]]:
        """The rows of every partition."""
        return {number: self.indices(number).tolist() for number in range(len(self._divided()))}

    def indices(self, partition_id: int) -> Indices:
        """The rows of a partition: sorted, or in random order with ``shuffle``."""
        parts = self._divided()
        check_partition(partition_id, len(parts))
        rows = parts[partition_id]
        if self._shuffle:
            rows = rows[Draws(np.random.default_rng([self._seed, 1, partition_id])).permutation(len(rows))]
        return rows

    def _divided(self) -> list[Indices]:
        if self._parts is None:
            values = np.zeros(len(self.dataset), np.uint8) if self._by is None else column_of(self.dataset, self._by)
            self._parts = in_own_words(lambda: self._split(values))
        return self._parts

    def _split(self, values: Values) -> list[Indices]:
        return split_examples(self._scheme, values, None, self._count, self._seed).train


class IidPartitioner(_ByRows):
    """Each partition is a random draw of the rows; sizes differ by at most one."""

    def __init__(self, num_partitions: int) -> None:
        super().__init__(_Iid(), num_partitions)


class DirichletPartitioner(_ByRows):
    """Each class is divided by a draw from a Dirichlet distribution.

    Args:
        alpha: The smaller, the more the labels differ. A list has one number for each partition.
    """

    def __init__(
        self,
        num_partitions: int,
        partition_by: str,
        alpha: float | Sequence[float],
        min_partition_size: int | None = 10,
        self_balancing: bool = False,
        shuffle: bool = True,
        seed: int | None = SEED,
    ) -> None:
        scheme = _Dirichlet(_numbers(alpha, "alpha"), min_partition_size or 0, self_balancing)
        super().__init__(scheme, num_partitions, partition_by=partition_by, shuffle=shuffle, seed=seed)


class InnerDirichletPartitioner(_ByRows):
    """Partitions of given sizes, each with its own Dirichlet mixture of the classes."""

    def __init__(
        self,
        partition_sizes: Sequence[int],
        partition_by: str,
        alpha: float | Sequence[float],
        shuffle: bool = True,
        seed: int | None = SEED,
    ) -> None:
        scheme = _InnerDirichlet(_numbers(alpha, "alpha"), _plain(partition_sizes))
        super().__init__(scheme, len(partition_sizes), partition_by=partition_by, shuffle=shuffle, seed=seed)


class DistributionPartitioner(_ByRows):
    """An array says how the rows of each class are divided among the partitions that have the class.

    Partition p has the classes p, p + 1 … p + k - 1 (from the first one again after the last), k being
    ``num_unique_labels_per_partition``.

    Args:
        distribution_array: A row for each class, and a number for each partition that has it, in their order.
        preassigned_num_samples_per_label: Rows that each partition has of each of its classes in any case.
        rescale: Whether the numbers are proportions; otherwise they are numbers of rows, and one partition, drawn at
            random, also gets the rows of a class that are left over.
    """

    def __init__(
        self,
        distribution_array: Any,
        num_partitions: int,
        num_unique_labels_per_partition: int,
        partition_by: str,
        preassigned_num_samples_per_label: int,
        rescale: bool = True,
        shuffle: bool = True,
        seed: int | None = SEED,
    ) -> None:
        super().__init__(None, num_partitions, partition_by=partition_by, shuffle=shuffle, seed=seed)
        self._array = np.asarray(distribution_array, np.float64)
        self._per_partition = num_unique_labels_per_partition
        self._preassigned, self._rescale = preassigned_num_samples_per_label, rescale

    def _split(self, values: Values) -> list[Indices]:
        _, _, sizes = coded(values)
        owners = self._owners(len(sizes))
        counts = np.zeros((len(sizes), self.num_partitions), np.int64)
        draws = Draws(np.random.default_rng([self._seed, 2]))
        for number, (row, size) in enumerate(zip(self._array, sizes, strict=True)):
            counts[number, owners[number]] = self._counts(row, int(size), number, draws)
        scheme = _Distribution(counts.T.tolist(), "count", min_examples=0)
        return split_examples(scheme, values, None, self._count, self._seed).train

    def _owners(self, num_classes: int) -> list[list[int]]:
        """The partitions that have each class."""
        count, each = self.num_partitions, self._per_partition
        if not 1 <= each <= num_classes or count % num_classes:
            raise FederatedDataError(
                f"{count} partitions cannot have {each} of {num_classes} classes each in turn",
                hint="num_partitions must be a multiple of the number of classes, and "
                "num_unique_labels_per_partition at most that number",
            )
        shape = (num_classes, count * each // num_classes)
        if self._array.shape != shape:
            raise FederatedDataError(
                f"distribution_array has shape {self._array.shape}; for {num_classes} classes, {count} partitions and "
                f"{each} classes per partition it must be {shape}"
            )
        if not np.isfinite(self._array).all() or (self._array < 0).any():
            raise FederatedDataError("distribution_array has a number that is negative or not finite")
        return [[p for p in range(count) if (label - p) % num_classes < each] for label in range(num_classes)]

    def _counts(self, row: Values, size: int, number: int, draws: Draws) -> Indices:
        if not self._rescale:
            counts = row.astype(np.int64)
            left = size - int(counts.sum())
            if left > 0:
                counts[draws.below(len(counts))] += left
            return counts
        left = size - self._preassigned * len(row)
        if left < 0:
            raise FederatedDataError(
                f"class number {number} has {size} rows, too few to preassign {self._preassigned} to each of "
                f"{len(row)} partitions",
                hint="lower preassigned_num_samples_per_label",
            )
        if not row.sum() > 0:
            raise FederatedDataError(f"row {number} of distribution_array is 0", hint="give one partition a share")
        counts = counts_of((row / row.sum())[None], np.array([left]))[0]
        return np.asarray(counts + self._preassigned, np.int64)


class PathologicalPartitioner(_ByRows):
    """Each partition has exactly k classes; a class is divided evenly among those that have it."""

    def __init__(
        self,
        num_partitions: int,
        partition_by: str,
        num_classes_per_partition: int,
        class_assignment_mode: str = "random",
        shuffle: bool = True,
        seed: int | None = SEED,
    ) -> None:
        _check_choice(
            "class_assignment_mode", class_assignment_mode, ("random", "deterministic", "first-deterministic")
        )
        scheme = _Pathological(num_classes_per_partition, class_assignment_mode)  # type: ignore[arg-type]
        super().__init__(scheme, num_partitions, partition_by=partition_by, shuffle=shuffle, seed=seed)


class ShardPartitioner(_ByRows):
    """The rows are sorted by label and cut into shards, which are dealt at random."""

    def __init__(
        self,
        num_partitions: int,
        partition_by: str,
        num_shards_per_partition: int | None = None,
        shard_size: int | None = None,
        keep_incomplete_shard: bool = False,
        shuffle: bool = True,
        seed: int | None = SEED,
    ) -> None:
        if num_shards_per_partition is None and shard_size is None:
            raise FederatedDataError("set num_shards_per_partition, shard_size, or both")
        scheme = _Shards(num_shards_per_partition, shard_size, keep_incomplete_shard)
        super().__init__(scheme, num_partitions, partition_by=partition_by, shuffle=shuffle, seed=seed)


class SizePartitioner(_ByRows):
    """Partitions of given sizes, or of given fractions of the rows."""

    def __init__(self, partition_sizes: Sequence[int] | Sequence[float]) -> None:
        super().__init__(_Sizes(_plain(partition_sizes)), len(partition_sizes))


class IdToSizeFncPartitioner(_ByRows):
    """Sizes are proportional to a function of the partitions' numbers 1, 2 …"""

    def __init__(self, num_partitions: int, partition_id_to_size_fn: Callable[[Any], Any]) -> None:
        super().__init__(None, num_partitions)
        self._size_of = partition_id_to_size_fn

    @property
    def partition_id_to_size(self) -> dict[int, int]:
        return {number: len(part) for number, part in enumerate(self._divided())}

    def _split(self, values: Values) -> list[Indices]:
        numbers = np.arange(1.0, self.num_partitions + 1)
        with np.errstate(over="ignore"):
            weights = np.asarray(self._size_of(numbers), np.float64) * np.ones(len(numbers))
        if not (np.isfinite(weights).all() and (weights > 0).all()):
            raise FederatedDataError(
                f"partition_id_to_size_fn must give numbers above 0 for 1 … {len(numbers)}, but gave "
                f"{weights.min()} … {weights.max()}"
            )
        return deal_by_weight(weights, len(values), 1, Draws(np.random.default_rng([self._seed, 0])))


class LinearPartitioner(IdToSizeFncPartitioner):
    """The sizes are in the proportions 1, 2, 3 …"""

    def __init__(self, num_partitions: int) -> None:
        super().__init__(num_partitions, lambda number: number)


class SquarePartitioner(IdToSizeFncPartitioner):
    """The sizes are in the proportions 1, 4, 9 …"""

    def __init__(self, num_partitions: int) -> None:
        super().__init__(num_partitions, np.square)


class ExponentialPartitioner(IdToSizeFncPartitioner):
    """The sizes are in the proportions 1, e, e² …, but none is below 1."""

    def __init__(self, num_partitions: int) -> None:
        super().__init__(num_partitions, lambda number: np.exp(np.maximum(number - num_partitions, -700.0)))


class NaturalIdPartitioner(_ByRows):
    """Each value of a column is a partition."""

    def __init__(self, partition_by: str) -> None:
        super().__init__(_NaturalId(), None, partition_by=partition_by)

    @property
    def partition_id_to_natural_id(self) -> dict[int, Any]:
        """The value of the column in each partition."""
        return dict(enumerate(coded(column_of(self.dataset, str(self._by)))[0].tolist()))


class GroupedNaturalIdPartitioner(_ByRows):
    """Each partition has the rows of several values of a column."""

    def __init__(
        self, partition_by: str, group_size: int, mode: str = "allow-smaller", sort_unique_ids: bool = False
    ) -> None:
        _check_choice("mode", mode, ("allow-smaller", "allow-bigger", "drop-reminder", "strict"))
        known = {"drop-reminder": "drop_remainder"}.get(mode, mode.replace("-", "_"))
        order = "sorted" if sort_unique_ids else "random"
        super().__init__(_GroupedIds(group_size, known, order), None, partition_by=partition_by)  # type: ignore[arg-type]


class ContinuousPartitioner(_ByRows):
    """The rows are sorted by a number, more or less strictly, and cut into partitions of equal size."""

    def __init__(
        self,
        num_partitions: int,
        partition_by: str,
        strictness: float,
        shuffle: bool = True,
        seed: int | None = SEED,
    ) -> None:
        if not 0 <= strictness <= 1:
            raise FederatedDataError(f"strictness is {strictness}; it must be a number from 0 to 1")
        super().__init__(_Continuous(strictness), num_partitions, partition_by=partition_by, shuffle=shuffle, seed=seed)


_ACTIVE = {
    "add_to_first": "first",
    "add_to_last": "last",
    "create_as_first": "first_alone",
    "create_as_last": "last_alone",
    "add_to_all": "all",
}


class _ByColumns(Partitioner):
    """Base of partitioners that divide the columns; each partition has all rows."""

    def __init__(
        self,
        sizes: list[Any] | None,
        num_partitions: int | None,
        active_party_columns: str | Sequence[str] | None,
        active_party_columns_mode: str | int,
        drop_columns: str | Sequence[str] | None,
        shared_columns: str | Sequence[str] | None,
        shuffle: bool,
        seed: int | None,
    ) -> None:
        super().__init__()
        mode = active_party_columns_mode
        self._to_one = mode if isinstance(mode, int) and not isinstance(mode, bool) else None
        self._active = _names(active_party_columns)
        drop = _names(drop_columns)
        if self._to_one is None:
            _check_choice("active_party_columns_mode", mode, tuple(_ACTIVE))
        self._scheme = _Vertical(
            sizes,
            [] if self._to_one is not None else self._active,
            _ACTIVE.get(str(mode), "last"),  # type: ignore[arg-type]
            _names(shared_columns),
            [*drop, *(self._active if self._to_one is not None else [])],
            shuffle,
        )
        alone = bool(self._active) and str(mode).startswith("create_as")
        self._count = None if num_partitions is None else num_partitions + alone
        self._seed = seed_of(seed)
        self._parts: list[list[str]] | None = None

    def load_partition(self, partition_id: int) -> Any:
        parts = self._divided()
        check_partition(partition_id, len(parts))
        return self.dataset.select_columns(parts[partition_id])

    @property
    def num_partitions(self) -> int:
        return len(self._divided())

    def _divided(self) -> list[list[str]]:
        if self._parts is None:
            names, rng = list(self.dataset.column_names), np.random.default_rng([self._seed, 0])
            parts = in_own_words(lambda: self._scheme.split_columns(names, self._count, rng))
            if self._to_one is not None:
                check_partition(self._to_one, len(parts))
                parts[self._to_one] = sorted([*parts[self._to_one], *self._active], key=names.index)
            self._parts = parts
        return self._parts


class VerticalEvenPartitioner(_ByColumns):
    """Equal numbers of columns for each partition, beside the active party's and the shared ones.

    Args:
        active_party_columns: Those of the party that knows the labels.
        active_party_columns_mode: The partition that gets them: ``add_to_first``, ``add_to_last``, ``add_to_all``, the
            number of one, or ``create_as_first`` or ``create_as_last``: one more that has only these.
    """

    def __init__(
        self,
        num_partitions: int,
        active_party_columns: str | Sequence[str] | None = None,
        active_party_columns_mode: str | int = "add_to_last",
        drop_columns: str | Sequence[str] | None = None,
        shared_columns: str | Sequence[str] | None = None,
        shuffle: bool = True,
        seed: int | None = SEED,
    ) -> None:
        mode = active_party_columns_mode
        super().__init__(None, num_partitions, active_party_columns, mode, drop_columns, shared_columns, shuffle, seed)


class VerticalSizePartitioner(_ByColumns):
    """Given numbers or fractions of the columns; otherwise as `VerticalEvenPartitioner`."""

    def __init__(
        self,
        partition_sizes: Sequence[int] | Sequence[float],
        active_party_columns: str | Sequence[str] | None = None,
        active_party_columns_mode: str | int = "add_to_last",
        drop_columns: str | Sequence[str] | None = None,
        shared_columns: str | Sequence[str] | None = None,
        shuffle: bool = True,
        seed: int | None = SEED,
    ) -> None:
        sizes, mode = _plain(partition_sizes), active_party_columns_mode
        super().__init__(sizes, None, active_party_columns, mode, drop_columns, shared_columns, shuffle, seed)


def check_partition(partition_id: int, count: int) -> None:
    if not 0 <= partition_id < count:
        raise FederatedDataError(
            f"there is no partition {partition_id}: the dataset is divided into {count}, numbered 0 to {count - 1}",
            hint="use num_partitions of context.node_config when the partitioner is made",
        )


def column_of(dataset: Any, name: str) -> Values:
    """The values of a column, of a `Dataset` or one of Hugging Face's."""
    return dataset.column(name).array() if isinstance(dataset, Dataset) else np.asarray(dataset[name])


def in_own_words(divide: Callable[[], Any]) -> Any:
    """What ``divide`` returns; a scheme's error in the words of these classes."""
    try:
        return divide()
    except FederatedDataError:
        raise
    except DataError as error:
        texts = [error.message, error.hint or ""]
        for theirs, ours in _WORDS:
            texts = [text.replace(theirs, ours) for text in texts]
        raise FederatedDataError(texts[0], hint=texts[1] or None) from error


def _numbers(alpha: Any, name: str) -> Any:
    """A number, or a list of numbers; all above 0."""
    found = np.asarray(alpha, np.float64)
    if found.ndim > 1 or not found.size or not (found > 0).all():
        raise FederatedDataError(f"{name} is {alpha!r:.100}; it must be a number above 0, or one for each")
    return found.tolist()


def _plain(sizes: Any) -> list[Any]:
    found = np.asarray(sizes).tolist()
    if not isinstance(found, list) or not found:
        raise FederatedDataError(f"partition_sizes is {sizes!r:.100}; it must be a list of numbers or of fractions")
    return found


def _names(given: str | Sequence[str] | None) -> list[str]:
    return [] if given is None else names_of(given)


def _check_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise FederatedDataError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}")
