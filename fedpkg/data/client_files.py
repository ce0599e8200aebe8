"""Writes what each client gets: a file with its examples, or a reference to the examples in the source's file."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedpkg.data.assignment import Assignment, Share
from fedpkg.data.manifest import Entry, Manifest, entry_of
from fedpkg.data.sources.base import Dataset
from fedpkg.errors import DataError
from fedpkg.files import fsync_folder, remove_tree, sha256_file
from fedpkg.partitions.splitting import TRANSFORM

INDEX = "index.npy"


def write_files(
    dataset: Dataset, assignment: Assignment, folder: Path, *, seed: int, check: Callable[[], None]
) -> list[Entry]:
    """Write ``<k>.npz`` (or .pt, .safetensors) for each client. The bytes depend only on the dataset and the split."""
    entries = []
    for k, path in enumerate(_paths(folder, len(assignment.shares), dataset.suffix)):
        check()
        arrays = _arrays(dataset, assignment.shares[k])
        if assignment.changes is not None:
            for name in [name for name in arrays if name.startswith("x_")]:
                rng = np.random.default_rng([seed, TRANSFORM, k, *name.encode()])
                arrays[name] = assignment.changes.transform(arrays[name], k, len(assignment.shares), rng)
        _write(path, arrays)
        entries.append(entry_of(path, len(arrays["y_train"])))
    return entries


def write_references(
    assignment: Assignment, folder: Path, *, source: Path, digest: str, check: Callable[[], None]
) -> tuple[list[Entry], list[Entry]]:
    """Write ``<k>.json`` for each client, and one file with the indices of all.

    A source in the same folder is named without its path, so that the folder can be moved. Returns the entries of the
    clients' files, and of other files there.

    Raises:
        DataError: The split changes features or selects columns, which a reference cannot say.
    """
    if assignment.changes is not None or any(share.columns is not None for share in assignment.shares):
        raise DataError(
            "clients.data.form: references have the source's own values, and this partitioner changes or selects them",
            hint="set clients.data.form to files",
        )
    flat = [indices for share in assignment.shares for _, indices in share.parts.values()]
    np.save(folder / INDEX, np.concatenate(flat).astype(np.int64))
    (folder / INDEX).chmod(0o444)
    status, is_inside = source.stat(), source.parent == folder.absolute()
    fixed = {
        "fedpkg_reference": 1,
        "source": source.name if is_inside else str(source),
        "digest": digest,
        "size_bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "sha256": sha256_file(source),
        "index": INDEX,
    }
    start, entries = 0, []
    for k, path in enumerate(_paths(folder, len(assignment.shares), ".json")):
        check()
        parts = {}
        for name, (split, indices) in assignment.shares[k].parts.items():
            parts[name] = {"of": split, "start": start, "stop": start + len(indices)}
            start += len(indices)
        path.write_text(json.dumps({**fixed, "parts": parts}, indent=1), encoding="utf-8")
        path.chmod(0o444)
        entries.append(entry_of(path, len(assignment.shares[k].parts["train"][1])))
    return entries, [entry_of(path) for path in (folder / INDEX, *[source] * is_inside)]


def source_of(folder: Path, manifest: Manifest) -> tuple[Path, int]:
    """The file to which the references in a folder lead, and the bytes that it had.

    Raises:
        DataError: the first reference is missing or damaged.
    """
    path = folder / manifest.partitions[0].file
    try:
        reference = json.loads(path.read_text(encoding="utf-8"))
        return folder / reference["source"], int(reference["size_bytes"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: the reference cannot be read: {error}", path=str(path)) from error


def lost_source(folder: Path, manifest: Manifest) -> Path | None:
    """The file to which the references in a folder lead, if it is missing or has another size."""
    source, size_bytes = source_of(folder, manifest)
    return None if source.is_file() and source.stat().st_size == size_bytes else source


def can_be_mapped(path: Path) -> bool:
    """Whether the arrays of a file can be mapped: an .npz whose members are not compressed."""
    if path.suffix != ".npz":
        return False
    with zipfile.ZipFile(path) as archive:
        return all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())


def write_copy(path: Path, dataset: Dataset, *, what: str, hint: str) -> None:
    """Write a whole dataset as an .npz whose arrays can be mapped. There is the whole file, or none.

    Args:
        what: What is mapped, for messages.
        hint: Is given if NumPy lacks a dtype.

    Raises:
        DataError: It does not fit on the disk, or has a dtype that NumPy does not have.
    """
    if strange := [name for name, array in dataset.arrays.items() if not isinstance(array, np.ndarray)]:
        dtype = dataset.arrays[strange[0]].dtype
        raise DataError(f"{what} need dtypes of NumPy, and {strange[0]} is {dtype}", hint=hint)
    needed, free = sum(array.nbytes for array in dataset.arrays.values()), shutil.disk_usage(path.parent).free
    if needed > free:
        raise DataError(
            f"{what} need {needed / 1e6:.0f} MB, and the disk of {path.parent} has {free / 1e6:.0f} MB",
            hint="make room, or choose another folder by --home; an uncompressed .npz is mapped where it is",
        )
    unfinished = path.with_name(f".{path.stem}.tmp.npz")
    remove_tree(unfinished)
    np.savez(unfinished, **dataset.arrays)
    unfinished.chmod(0o444)
    unfinished.replace(path)
    fsync_folder(path.parent)


def _paths(folder: Path, count: int, suffix: str) -> Iterator[Path]:
    width = len(str(count - 1))
    return (folder / f"{k:0{width}d}{suffix}" for k in range(count))


def _arrays(dataset: Dataset, share: Share) -> dict[str, Any]:
    """The client's arrays, in the order of the dataset's keys; parts that the dataset does not have come last."""
    arrays = {}
    keys = [f"{kind}_{part}" for part in share.parts for kind in ("x", "y")]
    for key in [*(key for key in dataset.arrays if key in keys), *(key for key in keys if key not in dataset.arrays)]:
        kind, part = key[0], key[2:]
        split, indices = share.parts[part]
        found = dataset.arrays[f"{kind}_{split}"][indices]
        arrays[key] = found if kind == "y" or share.columns is None else found[:, share.columns]
    return arrays


def _write(path: Path, arrays: dict[str, npt.NDArray[Any]]) -> None:
    if path.suffix == ".npz":
        np.savez(path, **arrays)  # type: ignore[arg-type]
    else:
        import torch

        tensors = {name: torch.as_tensor(array) for name, array in arrays.items()}
        if path.suffix == ".pt":
            torch.save(tensors, path)
        else:
            from fedpkg.formats.safetensors import dump_safetensors

            with open(path, "wb") as file:
                dump_safetensors(file, tensors.items())
    path.chmod(0o444)
