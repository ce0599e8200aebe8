"""How many rows of each class the partitions have, as tables of pandas."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedpkg.apps.federated_data.partitioners import Partitioner, column_of
from fedpkg.apps.federated_data.table import Dataset, pandas


def compute_counts(
    partitioner: Partitioner, column_name: str, verbose_names: bool = False, max_num_partitions: int | None = None
) -> Any:
    """A DataFrame with a row for each partition, and a column for each value of ``column_name``.

    Args:
        verbose_names: The columns are named after the classes, if the dataset knows their names.
        max_num_partitions: The first ones; None: all.
    """
    frame, dataset = pandas("compute_counts").DataFrame, partitioner.dataset
    values = np.unique(column_of(dataset, column_name))
    count = partitioner.num_partitions if max_num_partitions is None else max_num_partitions
    rows = []
    for number in range(min(count, partitioner.num_partitions)):
        found = column_of(partitioner.load_partition(number), column_name)
        rows.append([int((found == value).sum()) for value in values])
    names = values.tolist()
    classes = dataset.column(column_name).names if isinstance(dataset, Dataset) else None
    if verbose_names and classes is not None:
        names = [classes[value] for value in names]
    table = frame(rows, columns=names)
    table.index.name = "Partition ID"
    return table


def compute_frequencies(
    partitioner: Partitioner, column_name: str, verbose_names: bool = False, max_num_partitions: int | None = None
) -> Any:
    """As `compute_counts`, divided by the size of each partition."""
    counts = compute_counts(partitioner, column_name, verbose_names, max_num_partitions)
    return counts.div(counts.sum(axis=1), axis=0)
