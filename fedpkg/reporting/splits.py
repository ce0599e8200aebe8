"""How fedpkg split the data of a session, from the manifest of the split and the rows of the clients."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpkg.files import read_bounded

if TYPE_CHECKING:
    from fedpkg.stores.base import ClientRow, SessionRow

_MANIFEST = "partition.json"
_MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class Split:
    """The split of one dataset. ``counts``: examples for training, by client and label; empty: not on record."""

    clients: Sequence[str]
    sizes: Sequence[int]
    scheme: Mapping[str, Any]
    source: str
    labels: Sequence[Any] = ()
    counts: Sequence[Sequence[int]] = ()


def split_of(root: Path, session: SessionRow, clients: Sequence[ClientRow]) -> Split | None:
    """The split that fedpkg made for a session; None: it made none. ``root`` is the folder of the home."""
    data = (session.config.get("clients") or {}).get("data")
    if not isinstance(data, dict):
        return None
    sized = [client for client in clients if client.num_examples is not None]
    names, sizes = [client.client_id for client in sized], [client.num_examples or 0 for client in sized]
    partition = data.get("partition")
    scheme = {
        key: value for key, value in (partition if isinstance(partition, dict) else {}).items() if value is not None
    }
    dataset = data.get("dataset")
    if isinstance(dataset, dict):
        dataset = dataset.get("path") or dataset.get("name")
    split = Split(names, sizes, scheme, str(dataset or data.get("source") or ""))
    manifest = _manifest(root, sized)
    labels, counts = manifest.get("labels"), _counts(manifest)
    if isinstance(labels, list) and len(counts) == len(names) and all(len(line) == len(labels) for line in counts):
        return Split(names, sizes, scheme, split.source, labels, counts)
    return split


def _manifest(root: Path, clients: Sequence[ClientRow]) -> dict[str, Any]:
    path = next((client.data_path for client in clients if client.data_path), None)
    if path is None:
        return {}
    try:
        found = json.loads(read_bounded((root / path).parent / _MANIFEST, _MAX_BYTES))
    except (OSError, ValueError, RecursionError):  # it was pruned, or is of another version
        return {}
    return found if isinstance(found, dict) else {}


def _counts(manifest: Mapping[str, Any]) -> list[list[int]]:
    counts = manifest.get("counts")
    lines = counts.get("train") if isinstance(counts, dict) else None
    if not isinstance(lines, list) or not all(isinstance(line, list) for line in lines):
        return []
    is_numbers = all(isinstance(number, int) for line in lines for number in line)
    return lines if is_numbers else []
