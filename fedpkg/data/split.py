"""Splits a dataset among clients once, keeps the split with its manifest, and finds it again by its content."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from filelock import FileLock

from fedpkg.config import NAMED_DATASETS, DataConfig
from fedpkg.config_shape import Places
from fedpkg.data.assignment import Assignment, assign
from fedpkg.data.client_files import can_be_mapped, lost_source, source_of, write_copy, write_files, write_references
from fedpkg.data.manifest import FORMAT, MAX_CELLS, NAME, Entry, Manifest, changed_file, check_unchanged, read_manifest
from fedpkg.data.partitioners.registry import resolve_partition
from fedpkg.data.sources.base import Dataset
from fedpkg.data.sources.opening import OpenedSource
from fedpkg.data.sources.registry import WHERE_IT_IS, resolve_dataset
from fedpkg.errors import DataError
from fedpkg.files import fsync_folder, fsync_tree, remove_tree
from fedpkg.log import event

if TYPE_CHECKING:
    from fedpkg.types import Json

_LOG = logging.getLogger("fedpkg.data")
_SOURCES = "sources"  # folder of copies, in the cache, to which references lead
_COPY = re.compile(r"[0-9a-f]{32}\.npz|\.[0-9a-f]{32}\.tmp\.npz")  # the second one is half written
_SYNC_ALL_ABOVE = 1000  # files; each fsync takes milliseconds
_PLACES = Places("run configuration")


@dataclass(frozen=True)
class PartitionFile:
    """One client's file. Its arrays are a selection of the dataset's, along the first axis; or it is a reference."""

    path: Path
    num_examples: int


def split_dataset(
    data: DataConfig,
    num_partitions: int | None,
    *,
    cache: Path,
    seed: int,
    check: Callable[[], None] = lambda: None,
    isolated: bool = False,
    facts: Sequence[str] = (),
) -> list[PartitionFile]:
    """Split a dataset into ``<cache>/<digest of dataset and settings>/<k>.npz`` (or .pt, .safetensors, .json).

    Every training and test example goes to one client, unless the partitioner drops it. A client without test examples
    (more clients than test examples, or few training examples) borrows one from another client, of the class it trains
    on most, so that every file can be validated. A dataset without test examples gives files without test keys.

    Files are uncompressed and read-only; their bytes depend only on dataset and settings. A complete folder is reused
    without reading the dataset; a lock prevents two processes from making the same one.

    Args:
        num_partitions: None: the partitioner tells it (``natural_id``).
        check: See `fedpkg.data.clients.prepare_clients`.
        isolated: Tasks see only their own files: each client gets a file, also if ``data.form`` is ``references``.
        facts: Columns whose value the training examples of each client share; the manifest gets these values.

    Raises:
        DataError: The dataset cannot be read or split, changed meanwhile, or does not fit on the disk.
    """
    split = _Split.of(data, num_partitions, seed, "files" if isolated else data.form, facts)
    folder = cache / split.name
    if (files := _complete(folder)) is not None:
        return files
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / ".lock"):
        if (files := _complete(folder)) is not None:  # another process has made it in the meantime
            return files
        split.make(folder, check, copies=cache / _SOURCES)
    event(_LOG, logging.INFO, "data.partitioned", dataset=split.source.about, clients=num_partitions, folder=folder)
    files = _complete(folder)
    assert files is not None
    return files


def look_at(data: DataConfig, num_partitions: int | None, *, seed: int, facts: Sequence[str] = ()) -> Manifest:
    """The manifest of a split that is not written: it has no digests. Raises DataError as `split_dataset`."""
    split = _Split.of(data, num_partitions, seed, data.form, facts)
    dataset, found = split.divided()
    entries = [Entry("", 0, len(one.parts["train"][1])) for one in found.shares]
    return split.manifest(dataset, found, entries)


def split_into(folder: Path, data: DataConfig, num_partitions: int | None, *, seed: int) -> bool:
    """Split a dataset into any folder. True if the split was made, False if the same split was there already.

    Raises:
        DataError: The folder contains something else. Otherwise as `split_dataset`.
    """
    split = _Split.of(data, num_partitions, seed, data.form)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        hint = "give a folder that does not exist, or remove it"
        if not (folder / NAME).is_file():
            raise DataError(f"{folder}: it exists and is not a split", hint=hint, path=str(folder))
        manifest = read_manifest(folder)
        check_unchanged(folder, manifest)
        if manifest.settings != json.loads(json.dumps(split.key)):
            raise DataError(f"{folder}: it contains another split", hint=hint, path=str(folder))
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    split.make(folder, lambda: None)
    return True


def check_split(data: DataConfig, folder: Path) -> None:
    """Check, before a session is resumed, that neither its dataset nor the files of its split have changed.

    Files of a split stay complete if the dataset is gone; references do not.

    Raises:
        DataError: They have; with both digests.
    """
    manifest = read_manifest(folder)
    check_unchanged(folder, manifest)
    if data.dataset in NAMED_DATASETS:
        return  # their digest has the version of scikit-learn, and releases do not change datasets
    before = manifest.settings.get("dataset")
    before = before.get("digest") if isinstance(before, dict) else before
    try:
        now = OpenedSource(data.dataset, by=data.partition.get("by")).fingerprint()
    except DataError as error:
        if manifest.form == "references":
            raise
        event(_LOG, logging.WARNING, "data.source_missing", about=f"{error.message}; the clients' files are complete")
        return
    if manifest.form == "references" and (path := lost_source(folder, manifest)):
        raise DataError(f"{path}, to which the clients' references lead, is missing or has another size")
    if now != before:
        raise DataError(
            f"dataset {manifest.source.get('dataset', data.dataset)} has changed since the session began: its digest "
            f"was {before} and is now {now}",
            hint="restore it, or start a new run",
        )


def unneeded_copies(cache: Path) -> list[Path]:
    """The copies of datasets in a cache to which no split in it refers, and half-written ones.

    A split that is damaged may refer to any of them, so then all stay.
    """
    sources = cache / _SOURCES
    copies = sorted(path for path in sources.iterdir() if _COPY.fullmatch(path.name)) if sources.is_dir() else []
    needed: set[str] = set()
    for path in cache.glob(f"[!.]*/{NAME}") if copies else ():
        try:
            manifest = read_manifest(path.parent)
            if manifest.form == "references":
                needed.add(source_of(path.parent, manifest)[0].name)
        except DataError:
            return []
    return [path for path in copies if path.name not in needed]


@dataclass(frozen=True)
class _Split:
    """One split: what identifies it, and how it is made."""

    source: OpenedSource
    settings: dict[str, Any]
    key: dict[str, Any]
    num_partitions: int | None
    seed: int
    within: Mapping[str, float]
    form: Literal["files", "references"]
    facts: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        data: DataConfig,
        num_partitions: int | None,
        seed: int,
        form: Literal["files", "references"],
        facts: Sequence[str] = (),
    ) -> _Split:
        settings = resolve_partition(data.partition, _PLACES)
        given = settings["seed"]
        seed = given if isinstance(given, int) else seed
        source = OpenedSource(data.dataset, by=settings["by"], columns=facts)
        key = {
            "format": FORMAT,
            "dataset": _of_dataset(data.dataset, source.fingerprint()),
            "clients": num_partitions,
            **{name: value for name, value in settings.items() if name not in ("seed", "file") and value is not None},
            "seed": seed,
        }
        key |= {"within": data.within} if data.within else {}
        key |= {"form": form} if form != "files" else {}
        key |= {"facts": list(facts)} if facts else {}
        return cls(source, settings, key, num_partitions, seed, data.within, form, tuple(facts))

    @property
    def name(self) -> str:
        return hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()[:32]

    def make(self, folder: Path, check: Callable[[], None], *, copies: Path | None = None) -> None:
        """Write the split into a folder, which then is complete, or as it was before.

        Args:
            copies: Where a copy of the dataset goes, to which references lead. None: into the folder.
        """
        unfinished = folder.with_name(f".{folder.name}.tmp")
        remove_tree(unfinished)
        unfinished.mkdir()
        try:
            self._write(unfinished, check, copies)
            remove_tree(folder)
            _sync(unfinished)  # later only sizes and times are compared, which a power loss may leave right
            unfinished.replace(folder)
        except BaseException:
            remove_tree(unfinished)
            raise
        fsync_folder(folder.parent)

    def _write(self, folder: Path, check: Callable[[], None], copies: Path | None) -> None:
        dataset, found = self.divided()
        if self.form == "references":
            file = self._mapped(dataset, folder if copies is None else copies)
            entries, more = write_references(found, folder, source=file, digest=self.source.fingerprint(), check=check)
        else:
            self._check_space(dataset, folder)
            entries, more = write_files(dataset, found, folder, seed=self.seed, check=check), []
        self.manifest(dataset, found, entries, more).write(folder)

    def divided(self) -> tuple[Dataset, Assignment]:
        dataset = self.source.read()
        about = self.source.about
        return dataset, assign(dataset, self.settings, self.num_partitions, self.seed, within=self.within, about=about)

    def manifest(
        self, dataset: Dataset, found: Assignment, entries: list[Entry], more: Sequence[Entry] = ()
    ) -> Manifest:
        labels, counts = _counts(dataset, found)
        sizes = {part: [len(one.parts[part][1]) for one in found.shares] for part in found.shares[0].parts}
        return Manifest(
            self.key,
            entries,
            source={"dataset": self.source.about, "digest": self.source.fingerprint()},
            scheme={**{name: value for name, value in self.settings.items() if value is not None}, "seed": self.seed},
            within=dict(self.within),
            form=self.form,
            labels=labels,
            counts=counts,
            sizes=sizes,
            dropped={split: number for split, number in found.dropped.items() if number},
            more=list(more),
            facts={name: _fact(dataset, found, name, self.source.about) for name in self.facts},
        )

    def _mapped(self, dataset: Dataset, copies: Path) -> Path:
        """The file to which references lead: the source's own if its arrays can be mapped, or else one copy."""
        files = self.source.files()
        if len(files) == 1 and can_be_mapped(files[0]):
            return files[0].absolute()
        copy = copies / f"{hashlib.sha256(json.dumps(self.key['dataset']).encode()).hexdigest()[:32]}.npz"
        if not copy.exists():
            copies.mkdir(exist_ok=True)
            write_copy(copy, dataset, what="clients.data.form: references", hint="set clients.data.form to files")
        return copy.absolute()

    def _check_space(self, dataset: Dataset, folder: Path) -> None:
        needed, free = sum(array.nbytes for array in dataset.arrays.values()), shutil.disk_usage(folder).free
        if needed > free:
            raise DataError(
                f"dataset {self.source.about}: the split needs {needed / 1e9:.1f} GB, and {folder.parent} has "
                f"{free / 1e9:.1f} GB left",
                hint="free space, or set clients.data.form to references",
            )


def _sync(folder: Path) -> None:
    """Put a folder on disk: file by file or, where that would take longer, with all that the system has to write."""
    if sum(1 for _ in os.scandir(folder)) > _SYNC_ALL_ABOVE:
        os.sync()
    else:
        fsync_tree(folder)


def _of_dataset(dataset: str | Mapping[str, Json], digest: str) -> Any:
    """The dataset as a part of the key: for text as in fedpkg 0.1, otherwise its digest and the parameters."""
    resolved = resolve_dataset(dataset, _PLACES)
    if isinstance(resolved, str):
        return digest
    return {"digest": digest, **{name: value for name, value in resolved.items() if name not in WHERE_IT_IS}}


def _counts(dataset: Dataset, found: Assignment) -> tuple[list[Any] | None, dict[str, list[list[int]]]]:
    """The labels, and for each part the numbers of examples by client and label."""
    kinds = [dataset.labels(split) for split in ("train", "test")[: 1 + dataset.has_test]]
    if any(y.ndim != 1 or y.dtype.kind not in "biuUS" for y in kinds):
        return None, {}
    values = np.unique(np.concatenate(kinds))
    if len(values) * len(found.shares) > MAX_CELLS:
        return None, {}
    codes = {split: np.searchsorted(values, dataset.labels(split)) for split in ("train", "test")[: len(kinds)]}
    counts: dict[str, list[list[int]]] = {}
    for share in found.shares:
        for part, (split, indices) in share.parts.items():
            row = np.bincount(codes[split][indices], minlength=len(values)).tolist()
            counts.setdefault(part, []).append(row)
    labels = [dataset.classes[value] if dataset.classes else _plain(value) for value in values.tolist()]
    return labels, counts


def _fact(dataset: Dataset, found: Assignment, name: str, about: str) -> list[str]:
    """The value of a column that the training examples of each client share. Raises DataError: some do not."""
    column, texts = dataset.column(name, "train", f"dataset {about}"), dataset.texts.get(name)
    values = []
    for k, share in enumerate(found.shares):
        indices = np.concatenate([part for split, part in share.parts.values() if split == "train"])
        own = [str(_plain(value) if texts is None else texts[value]) for value in np.unique(column[indices]).tolist()]
        if len(own) != 1:
            some = f"{len(own)} values of it ({', '.join(own[:3])}{' …' * (len(own) > 3)})" if own else "no examples"
            raise DataError(
                f"dataset {about}: the column '{name}' tells no place of the client {k} in the tree: it has {some}",
                hint="divide the dataset by a column within whose values this one is the same, such as "
                "clients.data.partition='{name: natural_id, by: hospital}'",
            )
        values += own
    return values


def _plain(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _complete(folder: Path) -> list[PartitionFile] | None:
    """The files of a folder, if it is complete and unchanged."""
    if not (folder / NAME).is_file():
        return None
    try:
        manifest = read_manifest(folder)
    except DataError:
        return None
    if changed_file(folder, manifest) or (manifest.form == "references" and lost_source(folder, manifest)):
        return None
    return [PartitionFile(folder / entry.file, entry.num_examples) for entry in manifest.partitions]
