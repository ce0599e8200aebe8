"""Finds the data that the name of a dataset stands for, by `data.sources` of the run configuration.

The session writes a list of the datasets, whose path tasks and the server's program find in FEDPKG_DATASETS::

    {"fedpkg_datasets": 1, "datasets": {"cifar10": {"train": {"img": {"file": "/…/a.npz", "array": "x_train"}, …}}},
     "files": {"/…/a.npz": {"size_bytes": …, "mtime_ns": …, "sha256": …}}}

A column of a table also has ``column``, its place in the array. ``files`` are those of the user, which must not change
during the session. Names that scikit-learn contains need no entry.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from fedpkg.apps.federated_data.columns import Column, is_picture
from fedpkg.apps.federated_data.table import Dataset
from fedpkg.apps.scikit import NAMES, arrays_of_scikit
from fedpkg.client.data import check_source, open_data
from fedpkg.client.errors import ClientError
from fedpkg.errors import FederatedDataError

VARIABLE = "FEDPKG_DATASETS"


def open_splits(dataset: str, subset: str | None) -> dict[str, Dataset]:
    """The splits of a dataset, by name: most have ``train`` and ``test``. Arrays are mapped.

    Raises:
        FederatedDataError: The configuration names no data for it, or they cannot be read.
    """
    listing = _listing()
    listed = listing["datasets"]
    last = dataset.rpartition("/")[2]
    wanted = [f"{name}/{subset}" for name in (dataset, last) if subset is not None] + [dataset, last]
    for name in wanted:
        if name in listed:
            return _opened(listed[name], listing["files"])
    if dataset in NAMES:
        return _of_scikit(dataset)
    named = f"the configuration names: {', '.join(listed)}" if listed else "the configuration names no data"
    raise FederatedDataError(
        f"FederatedDataset: no data are named for the dataset '{dataset}'; {named}. fedpkg downloads nothing",
        hint="get the data as a file (.npz, .csv, .parquet …) or a folder of images by class, then name it: fedpkg "
        f"run APPDIR run.data.sources.{last}=PATH, or in a run.yaml  data: {{sources: {{{last}: PATH}}}}",
    )


def _listing() -> dict[str, Any]:
    path = os.environ.get(VARIABLE)
    if not path:
        return {"datasets": {}}
    try:
        with open(path, encoding="utf-8") as file:
            found: dict[str, Any] = json.load(file)
    except (OSError, ValueError) as error:
        raise FederatedDataError(f"{path}: the list of the run's datasets cannot be read: {error}") from error
    return found


def _opened(splits: Mapping[str, Mapping[str, Any]], facts: Mapping[str, Any]) -> dict[str, Dataset]:
    files: dict[str, Any] = {}
    found = {}
    for split, columns in splits.items():
        made = {}
        for name, told in columns.items():
            if told["file"] not in files:
                files[told["file"]] = _mapped(told["file"], facts.get(told["file"]))
            values = files[told["file"]][told["array"]]
            values = values if told.get("column") is None else values[:, told["column"]]
            names = told.get("classes")
            is_image = is_picture(values.shape, values.dtype)
            made[name] = Column(values, names=None if names is None else tuple(names), is_image=is_image)
        found[split] = Dataset(made)
    return found


def _mapped(path: str, facts: Mapping[str, Any] | None) -> Mapping[str, Any]:
    try:
        if facts is not None:
            check_source(path, facts)
        return open_data(path)
    except ClientError as error:
        told = error.message.replace("since the split", "since the session began or was resumed")
        raise FederatedDataError(told, hint=error.hint) from error


def _of_scikit(name: str) -> dict[str, Dataset]:
    try:
        arrays = arrays_of_scikit(name)
    except ImportError as error:
        raise FederatedDataError(
            f"FederatedDataset: scikit-learn, which has the dataset '{name}', is not installed",
            hint="pip install scikit-learn",
        ) from error
    return {
        split: Dataset({"x": Column(arrays[f"x_{split}"]), "label": Column(arrays[f"y_{split}"])})
        for split in ("train", "test")
    }
