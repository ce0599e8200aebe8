"""Splits a dataset into one file per client, once, and keeps the files in a cache."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from fedpkg.config import NAMED_DATASETS, DataConfig
from fedpkg.config_shape import Places
from fedpkg.data.base import Indices
from fedpkg.data.datasets import Dataset, missing_scikit_learn, read_dataset
from fedpkg.data.partitioners.registry import make_partitioner, resolve_partition
from fedpkg.data.partitioners.splitting import BORROW, split_examples
from fedpkg.files import fsync_folder, fsync_tree, remove_tree, sha256_file
from fedpkg.log import event

_LOG = logging.getLogger("fedpkg.data")
_MANIFEST = "partition.json"
_FORMAT = 1  # part of the cache's key: increment it when the same settings give other files


@dataclass(frozen=True)
class PartitionFile:
    """One client's file. It has the dataset's keys; every array is a selection along the first axis."""

    path: Path
    num_examples: int


def partition_files(
    data: DataConfig, num_partitions: int | None, *, cache: Path, seed: int, check: Callable[[], None]
) -> list[PartitionFile]:
    """Split a dataset into ``<cache>/<digest of dataset and settings>/<k>.npz`` (``.pt`` from a .pt dataset).

    Every training and test example goes to exactly one client. A client without test examples (more clients than test
    examples, or few training examples) borrows one from another client, of the class it trains on most, so that every
    file can be validated. A dataset without test examples gives files without test keys.

    Files are uncompressed and read-only; their bytes depend only on dataset and settings. A complete folder is reused
    without reading the dataset; a lock prevents two processes from making the same one. ``check``: see
    `fedpkg.data.clients.prepare_clients`.
    """
    settings = resolve_partition(data.partition, Places("run configuration"))
    seed = seed if not isinstance(settings["seed"], int) else settings["seed"]
    key = {
        "format": _FORMAT,
        "dataset": _fingerprint(data.dataset),
        "clients": num_partitions,
        **_scheme_of(settings),
        "seed": seed,
    }
    folder = cache / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    if (files := _complete(folder)) is not None:
        return files
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / ".lock"):
        if (files := _complete(folder)) is not None:  # another process has made it in the meantime
            return files
        dataset = read_dataset(data.dataset)
        unfinished = folder.with_name(f".{folder.name}.tmp")
        remove_tree(unfinished)
        unfinished.mkdir()
        try:
            _write(dataset, _split(dataset, settings, num_partitions, seed), unfinished, key, check)
            remove_tree(folder)
            fsync_tree(unfinished)  # later only sizes are compared, which a power loss may leave right
            unfinished.replace(folder)
        except BaseException:
            remove_tree(unfinished)
            raise
        fsync_folder(cache)
    event(_LOG, logging.INFO, "data.partitioned", dataset=data.dataset, clients=num_partitions, folder=folder)
    files = _complete(folder)
    assert files is not None
    return files


def _fingerprint(dataset: str) -> str:
    if dataset not in NAMED_DATASETS:
        path = Path(dataset)
        if not path.is_file():
            read_dataset(dataset)  # raises the error
        return f"sha256:{sha256_file(path)}{path.suffix}"
    try:  # the version, not the bytes: importing scikit-learn takes a second, and releases do not change datasets
        return f"{dataset} {importlib.metadata.version('scikit-learn')}"
    except importlib.metadata.PackageNotFoundError as error:
        raise missing_scikit_learn(dataset) from error


def _scheme_of(settings: dict[str, Any]) -> dict[str, Any]:
    """The scheme as a part of the cache's key; for the two of fedpkg 0.1 with the keys that they had there."""
    scheme = {key: value for key, value in settings.items() if key not in ("seed", "file") and value is not None}
    alpha, is_balancing = scheme.get("alpha"), scheme.pop("self_balancing", False)
    if scheme["name"] == "iid" or (scheme["name"] == "dirichlet" and not isinstance(alpha, list) and not is_balancing):
        return {**scheme, "alpha": None if alpha is None else float(alpha)}
    return {**scheme, "self_balancing": is_balancing}


def _split(
    dataset: Dataset, settings: dict[str, Any], num_partitions: int | None, seed: int
) -> tuple[list[Indices], list[Indices]]:
    train_labels = dataset.labels("train")
    test_labels = dataset.labels("test") if dataset.has_test else None
    split = split_examples(make_partitioner(settings), train_labels, test_labels, num_partitions, seed)
    train, test = split.train, split.test
    if test_labels is None:
        return train, []
    rng = np.random.default_rng([seed, BORROW])
    for k, part in enumerate(test):
        if len(part) == 0:
            test[k] = _borrow(train_labels[train[k]], test_labels, rng)
    return train, test


def _borrow(own: npt.NDArray[Any], test_labels: npt.NDArray[Any], rng: np.random.Generator) -> Indices:
    """One test example of the client's most frequent class or, if there is none (or no classes), any."""
    candidates = np.arange(len(test_labels))
    if own.ndim == 1 and test_labels.ndim == 1 and len(own):
        classes, counts = np.unique(own, return_counts=True)
        same = np.flatnonzero(test_labels == classes[counts.argmax()])
        candidates = same if len(same) else candidates
    return rng.choice(candidates, size=1)


def _write(
    dataset: Dataset,
    parts: tuple[list[Indices], list[Indices]],
    folder: Path,
    key: dict[str, Any],
    check: Callable[[], None],
) -> None:
    train, test = parts
    width = len(str(len(train) - 1))
    entries = []
    for k, train_indices in enumerate(train):
        check()
        chosen = {"train": train_indices, "test": test[k] if test else None}
        part = {name: array[chosen[name[2:]]] for name, array in dataset.arrays.items()}
        path = folder / f"{k:0{width}d}{dataset.suffix}"
        if dataset.suffix == ".npz":
            np.savez(path, **part)
        else:
            import torch

            torch.save({name: torch.as_tensor(array) for name, array in part.items()}, path)
        path.chmod(0o444)
        entries.append({"file": path.name, "size_bytes": path.stat().st_size, "num_examples": len(train_indices)})
    (folder / _MANIFEST).write_text(json.dumps({"settings": key, "partitions": entries}, indent=1), encoding="utf-8")


def _complete(folder: Path) -> list[PartitionFile] | None:
    """The files of a folder, if it is complete."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        if any((folder / entry["file"]).stat().st_size != entry["size_bytes"] for entry in manifest["partitions"]):
            return None
    except (OSError, ValueError):
        return None
    return [PartitionFile(folder / entry["file"], entry["num_examples"]) for entry in manifest["partitions"]]
