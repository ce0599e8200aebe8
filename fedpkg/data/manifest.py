"""The manifest of a split: what was split, how, and which client got how many examples of each label."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import msgspec

from fedpkg.errors import DataError
from fedpkg.files import read_bounded, sha256_file

NAME = "partition.json"
FORMAT = 2  # increment it when the same settings give other files, so that former splits stay apart
MAX_BYTES = 512 << 20
MAX_CELLS = 2_000_000  # of the counts by client and label
_Number: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]


@dataclass(frozen=True)
class Entry:
    """One client's file in the folder. A folder of fedpkg 0.1 has neither digest nor time."""

    file: str
    size_bytes: _Number
    num_examples: _Number
    sha256: str | None = None
    mtime_ns: int | None = None


@dataclass(frozen=True)
class Manifest:
    """The content of partition.json.

    Args:
        settings: What the name of the folder is the digest of.
        partitions: The clients' files, in the order of the clients.
        source: ``dataset`` in words and ``digest``.
        scheme: The name and parameters of the partitioner, with the seed.
        within: The fractions of each client's examples, by part.
        labels: The labels (or names of classes) in the order of the counts; None: not one class per example.
        counts: For each part (train, test …) the number of examples by client and label.
        sizes: For each part the number of examples by client.
        dropped: For each split the number of examples that no client got.
        facts: By the name of a column, the value that the training examples of each client share.
        more: Other files in the folder, to which references lead.
    """

    settings: dict[str, Any]
    partitions: list[Entry]
    source: dict[str, Any] = field(default_factory=dict)
    scheme: dict[str, Any] = field(default_factory=dict)
    within: dict[str, float] = field(default_factory=dict)
    form: str = "files"
    labels: list[Any] | None = None
    counts: dict[str, list[list[_Number]]] = field(default_factory=dict)
    sizes: dict[str, list[_Number]] = field(default_factory=dict)
    dropped: dict[str, _Number] = field(default_factory=dict)
    more: list[Entry] = field(default_factory=list)
    facts: dict[str, list[str]] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        (folder / NAME).write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False), encoding="utf-8")

    def top_labels(self) -> list[str] | None:
        """The label that most training examples of each client have, the first of several; None: there are none."""
        if self.labels is None or not (counts := self.counts.get("train")):
            return None
        return [str(self.labels[max(range(len(row)), key=row.__getitem__)]) for row in counts]

    def problem(self) -> str | None:
        """What contradicts itself, in words; None: nothing."""
        num_clients, num_labels = len(self.partitions), len(self.labels or ())
        if not num_clients:
            return "it lists no clients"
        if not all(Path(each.file).name == each.file for each in (*self.partitions, *self.more)):
            return "a file is not in the folder"
        for part, rows in self.counts.items():
            if len(rows) != num_clients or any(len(row) != num_labels for row in rows):
                return f"counts.{part} are not {num_clients} clients × {num_labels} labels"
        for part, sizes in self.sizes.items():
            if len(sizes) != num_clients:
                return f"sizes.{part} are not those of {num_clients} clients"
        for name, values in self.facts.items():
            if len(values) != num_clients:
                return f"facts.{name} are not those of {num_clients} clients"
        return None


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a split's folder.

    Raises:
        DataError: There is none, or it is damaged.
    """
    path = folder / NAME
    try:
        manifest = msgspec.json.decode(read_bounded(path, MAX_BYTES), type=Manifest)
        if problem := manifest.problem():
            raise ValueError(problem)
    except OSError as error:
        raise DataError(
            f"{folder}: it is not the folder of a split: {error.strerror}: {NAME}",
            hint="give a folder that `fedpkg data partition` or a run has made",
            path=str(folder),
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: the manifest of the split is damaged: {error}", path=str(path)) from error
    return manifest


def changed_file(folder: Path, manifest: Manifest) -> str | None:
    """What was changed by hand in a folder, in words; None: nothing. Only files with a new time are read."""
    for entry in (*manifest.partitions, *manifest.more):
        path = folder / entry.file
        try:
            status = path.stat()
        except OSError:
            return f"{path} is missing"
        if status.st_size != entry.size_bytes:
            return f"{path} has {status.st_size} bytes, and had {entry.size_bytes}"
        if entry.sha256 is None or status.st_mtime_ns == entry.mtime_ns:
            continue
        if (now := sha256_file(path)) != entry.sha256:
            return f"{path} was changed: its digest was sha256:{entry.sha256} and is now sha256:{now}"
    return None


def entry_of(path: Path, num_examples: int = 0) -> Entry:
    status = path.stat()
    return Entry(path.name, status.st_size, num_examples, sha256_file(path), status.st_mtime_ns)


def check_unchanged(folder: Path, manifest: Manifest) -> None:
    """Raise DataError if a file of the split was changed or removed by hand."""
    if problem := changed_file(folder, manifest):
        hint = f"remove the folder {folder}; a new run with this data and seed makes the same split again"
        if manifest.settings.get("format") != FORMAT:
            hint = "put the files back, or start a new run: it splits the data anew, as this version of fedpkg does"
        raise DataError(
            f"the split was changed after it was made: {problem}",
            hint=hint,
            path=str(folder),
        )
