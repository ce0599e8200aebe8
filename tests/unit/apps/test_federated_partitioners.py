"""Every partitioner by its public name: a partition of the rows (or columns), by the scheme's own rule."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpkg.apps.federated_data import Dataset, FederatedDataError

RUNTIME = Path(__file__).parents[3] / "fedpkg" / "runtime"
ROWS = 600


@pytest.fixture(scope="module")
def partitioner() -> Iterator[Any]:
    """The module flwr_datasets.partitioner, as a task imports it."""
    modules, finders, folders = dict(sys.modules), list(sys.meta_path), list(sys.path)
    sys.path[:0] = [str(RUNTIME / "path"), str(RUNTIME / "compat")]
    yield importlib.import_module("flwr_datasets.partitioner")
    sys.path[:], sys.meta_path[:] = folders, finders
    for name in sys.modules.keys() - modules.keys():
        if name.partition(".")[0] in ("flwr_datasets", "_fedpkg_names"):
            del sys.modules[name]


def table() -> Dataset:
    rng = np.random.default_rng(1)
    return Dataset.from_dict(
        {
            "row": list(range(ROWS)),
            "label": rng.permutation(np.arange(ROWS) % 10),
            "user": [f"user-{number}" for number in rng.integers(0, 12, ROWS)],
            "age": rng.normal(40, 10, ROWS),
        }
    )


def of_labels(part: Dataset) -> set[int]:
    return set(part["label"])


# For each name: how it is made, the number of partitions, and whether all rows are in one.
BY_ROWS: dict[str, tuple[Callable[[Any], Any], int, bool]] = {
    "IidPartitioner": (lambda p: p.IidPartitioner(7), 7, True),
    "DirichletPartitioner": (lambda p: p.DirichletPartitioner(6, "label", 0.5), 6, True),
    "InnerDirichletPartitioner": (lambda p: p.InnerDirichletPartitioner([100, 200, 300], "label", 0.3), 3, True),
    "DistributionPartitioner": (
        lambda p: p.DistributionPartitioner(np.random.default_rng(0).lognormal(0, 2, (10, 4)), 20, 2, "label", 5),
        20,
        True,
    ),
    "PathologicalPartitioner": (
        lambda p: p.PathologicalPartitioner(10, "label", 2, "first-deterministic"),
        10,
        True,
    ),
    "ShardPartitioner": (lambda p: p.ShardPartitioner(10, "label", num_shards_per_partition=2), 10, True),
    "SizePartitioner": (lambda p: p.SizePartitioner([10, 20, 30]), 3, False),
    "IdToSizeFncPartitioner": (lambda p: p.IdToSizeFncPartitioner(3, lambda number: number**3), 3, True),
    "LinearPartitioner": (lambda p: p.LinearPartitioner(3), 3, True),
    "SquarePartitioner": (lambda p: p.SquarePartitioner(3), 3, True),
    "ExponentialPartitioner": (lambda p: p.ExponentialPartitioner(5), 5, True),
    "NaturalIdPartitioner": (lambda p: p.NaturalIdPartitioner("user"), 12, True),
    "GroupedNaturalIdPartitioner": (lambda p: p.GroupedNaturalIdPartitioner("user", 5), 3, True),
    "ContinuousPartitioner": (lambda p: p.ContinuousPartitioner(4, "age", 1.0), 4, True),
}


@pytest.mark.parametrize("name", BY_ROWS)
def test_each_row_is_in_one_partition_at_most(partitioner: Any, name: str) -> None:
    make, count, is_whole = BY_ROWS[name]
    divide = make(partitioner)
    assert isinstance(divide, partitioner.Partitioner)
    assert not divide.is_dataset_assigned()
    divide.dataset = table()
    parts = [divide.load_partition(number)["row"] for number in range(divide.num_partitions)]
    rows = [row for part in parts for row in part]
    assert len(parts) == count
    assert all(parts)
    assert len(rows) == len(set(rows))
    assert (len(rows) == ROWS) is is_whole
    again = make(partitioner)
    again.dataset = table()
    assert [again.load_partition(number)["row"] for number in range(count)] == parts
    for wrong in (-1, count):
        with pytest.raises(
            FederatedDataError, match=f"there is no partition {wrong}: the dataset is divided into {count},"
        ):
            divide.load_partition(wrong)


def test_all_of_them_are_tested(partitioner: Any) -> None:
    by_columns = {"VerticalEvenPartitioner", "VerticalSizePartitioner"}
    assert set(partitioner.__all__) == {*BY_ROWS, *by_columns, "Partitioner"}


def parts_of(divide: Any) -> list[Dataset]:
    divide.dataset = table()
    return [divide.load_partition(number) for number in range(divide.num_partitions)]


def test_sizes(partitioner: Any) -> None:
    def sizes(divide: Any) -> list[int]:
        return [len(part) for part in parts_of(divide)]

    assert set(sizes(partitioner.IidPartitioner(7))) == {85, 86}
    assert sizes(partitioner.LinearPartitioner(3)) == [100, 200, 300]
    assert sizes(partitioner.SquarePartitioner(3)) == pytest.approx([600 / 14, 2400 / 14, 5400 / 14], abs=1)
    assert sizes(partitioner.ExponentialPartitioner(2)) == pytest.approx(
        [600 / (1 + np.e), 600 * np.e / (1 + np.e)], abs=1
    )
    assert sizes(partitioner.SizePartitioner([0.5, 0.25])) == [300, 150]
    assert sizes(partitioner.InnerDirichletPartitioner([100, 200, 300], "label", 0.3)) == [100, 200, 300]
    assert min(sizes(partitioner.DirichletPartitioner(6, "label", [1, 1, 1, 1, 1, 5.0]))) >= 10
    assert sizes(partitioner.ShardPartitioner(4, "label", shard_size=70)) == [140] * 4
    assert sum(sizes(partitioner.ShardPartitioner(4, "label", shard_size=70, keep_incomplete_shard=True))) == 600


def test_labels(partitioner: Any) -> None:
    for mode in ("random", "deterministic", "first-deterministic"):
        parts = parts_of(partitioner.PathologicalPartitioner(10, "label", 3, mode))
        assert {len(of_labels(part)) for part in parts} == {3}
    assert [
        of_labels(part) for part in parts_of(partitioner.PathologicalPartitioner(10, "label", 2, "deterministic"))
    ] == [{number, (number + 1) % 10} for number in range(10)]
    skewed, even = (parts_of(partitioner.DirichletPartitioner(5, "label", alpha)) for alpha in (0.05, 1000.0))
    assert max(map(len, map(of_labels, skewed))) < 10
    assert {len(of_labels(part)) for part in even} == {10}


def test_a_given_distribution(partitioner: Any) -> None:
    array = np.ones((10, 4))
    array[:, 0] = 5
    parts = parts_of(partitioner.DistributionPartitioner(array, 20, 2, "label", 10))
    assert [of_labels(part) for part in parts[:3]] == [{0, 1}, {1, 2}, {2, 3}]
    # Class 0, of 60 rows, is in the partitions 0, 9, 10 and 19: 10 for each, and 20 in the proportions 5 : 1 : 1 : 1.
    counts = [parts[number]["label"].count(0) for number in (0, 9, 10, 19)]
    assert sum(counts) == 60
    assert counts == pytest.approx([10 + 12.5, 12.5, 12.5, 12.5], abs=1)
    exact = parts_of(partitioner.DistributionPartitioner(np.full((10, 2), 20), 10, 2, "label", 0, rescale=False))
    assert sum(map(len, exact)) == ROWS
    assert {part["label"].count(label) for part in exact for label in of_labels(part)} == {20, 40}
    for wrong, count, message in (
        (np.ones((10, 3)), 20, r"has shape \(10, 3\); for 10 classes, 20 partitions .* it must be \(10, 4\)"),
        (np.ones((10, 4)), 15, "15 partitions cannot have 2 of 10 classes each in turn"),
        (-np.ones((10, 4)), 20, "negative or not finite"),
    ):
        with pytest.raises(FederatedDataError, match=message):
            parts_of(partitioner.DistributionPartitioner(wrong, count, 2, "label", 5))


def test_ids_and_numbers(partitioner: Any) -> None:
    divide = partitioner.NaturalIdPartitioner("user")
    parts = parts_of(divide)
    names = divide.partition_id_to_natural_id
    assert [set(part["user"]) for part in parts] == [{names[number]} for number in range(12)]
    groups = parts_of(partitioner.GroupedNaturalIdPartitioner("user", 5, "drop-reminder", sort_unique_ids=True))
    assert [sorted(set(part["user"])) for part in groups] == [sorted(names.values())[:5], sorted(names.values())[5:10]]
    ages = [part["age"] for part in parts_of(partitioner.ContinuousPartitioner(4, "age", 1.0))]
    assert all(max(lower) <= min(upper) for lower, upper in itertools.pairwise(ages))


def test_columns(partitioner: Any) -> None:
    def names(divide: Any) -> list[list[str]]:
        return [part.column_names for part in parts_of(divide)]

    for mode, expected in (
        ("add_to_first", ["row", "label", "user", "age"]),
        ("add_to_last", ["row", "user", "age", "label"]),
        ("create_as_first", ["label", "row", "user", "age"]),
        ("create_as_last", ["row", "user", "age", "label"]),
        (1, ["row", "label", "user", "age"]),
    ):
        found = names(partitioner.VerticalEvenPartitioner(3, "label", mode, shuffle=False))
        assert sorted(name for part in found for name in part) == sorted(expected)
        assert len(found) == 3 + str(mode).startswith("create")
        place = {"add_to_first": 0, "create_as_first": 0, 1: 1}.get(mode, len(found) - 1)  # type: ignore[call-overload]
        assert [number for number, part in enumerate(found) if "label" in part] == [place]
    assert all("label" in part for part in names(partitioner.VerticalEvenPartitioner(3, "label", "add_to_all")))
    sized = partitioner.VerticalSizePartitioner([1, 2], drop_columns="label", shuffle=False)
    assert names(sized) == [["row"], ["user", "age"]]
    shared = partitioner.VerticalSizePartitioner([0.5, 0.5], shared_columns=["label", "row"])
    assert all({"label", "row"} < set(part) for part in names(shared))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p.IidPartitioner(0), "num_partitions is 0; it must be a whole number from 1"),
        (lambda p: p.IidPartitioner(601), "600 examples are too few to give each of 601 partitions at least 1"),
        (lambda p: p.DirichletPartitioner(6, "label", 0), "alpha is 0; it must be a number above 0"),
        (lambda p: p.DirichletPartitioner(6, "label", [1.0, 2.0]), "alpha has 2 numbers for 6 partitions"),
        (
            lambda p: p.DirichletPartitioner(6, "label", 0.1, min_partition_size=99),
            "raise alpha .*or lower num_partitions .* or min_partition_size",
        ),
        (
            lambda p: p.DirichletPartitioner(6, "labels", 0.1),
            "the dataset has no column 'labels'; did you mean 'label'",
        ),
        (lambda p: p.DirichletPartitioner(6, "age", 0.1), "needs one class per example"),
        (lambda p: p.PathologicalPartitioner(6, "label", 11), "lower num_classes_per_partition"),
        (
            lambda p: p.PathologicalPartitioner(6, "label", 2, "any"),
            "class_assignment_mode is 'any'; it must be one of",
        ),
        (lambda p: p.ShardPartitioner(6, "label"), "set num_shards_per_partition, shard_size, or both"),
        (lambda p: p.SizePartitioner([500, 200]), "sizes adds up to 700, but there are 600 examples"),
        (lambda p: p.SizePartitioner([]), "partition_sizes is"),
        (lambda p: p.IdToSizeFncPartitioner(3, lambda number: number - 1), "must give numbers above 0 for 1 … 3"),
        (lambda p: p.GroupedNaturalIdPartitioner("user", 5, "strict"), "2 are left over"),
        (lambda p: p.GroupedNaturalIdPartitioner("user", 5, "all"), "mode is 'all'; it must be one of"),
        (lambda p: p.ContinuousPartitioner(3, "age", 2), "strictness is 2"),
        (lambda p: p.VerticalEvenPartitioner(9), "4 columns cannot be divided among 9 partitions"),
        (lambda p: p.VerticalEvenPartitioner(2, "label", "nowhere"), "active_party_columns_mode is 'nowhere'"),
    ],
)
def test_mistakes_are_named_in_the_words_of_the_app(partitioner: Any, make: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(FederatedDataError, match=message) as caught:
        parts_of(make(partitioner))
    told = str(caught.value)
    assert "client" not in told
    assert "partition.min" not in told


def test_a_partitioner_divides_one_dataset(partitioner: Any) -> None:
    divide = partitioner.IidPartitioner(2)
    with pytest.raises(AttributeError, match="has no dataset yet"):
        divide.load_partition(0)
    with pytest.raises(TypeError, match="divides a Dataset, not a list"):
        divide.dataset = [1, 2]
    divide.dataset = table()
    with pytest.raises(FederatedDataError, match="has a dataset already"):
        divide.dataset = table()
    assert divide.partition_id_to_indices.keys() == {0, 1}


def test_a_custom_partitioner(partitioner: Any) -> None:
    class Halves(partitioner.Partitioner):  # type: ignore[misc]
        @property
        def num_partitions(self) -> int:
            return 2

        def load_partition(self, partition_id: int) -> Any:
            return self.dataset.shard(2, partition_id)

    assert [len(part) for part in parts_of(Halves())] == [300, 300]
