"""How fedpkg split the data of a session, from the manifest of the split and the rows of the clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpkg.data.manifest import read_manifest
from fedpkg.errors import DataError

if TYPE_CHECKING:
    from fedpkg.stores.base import ClientRow, SessionRow


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
    labels, counts = _counts(root, sized)
    return Split(names, sizes, scheme, str(dataset or data.get("source") or ""), labels, counts)


def _counts(root: Path, clients: Sequence[ClientRow]) -> tuple[Sequence[Any], Sequence[Sequence[int]]]:
    """The labels, and the counts of training examples by client and label; both empty if they are not on record."""
    path = next((client.data_path for client in clients if client.data_path), None)
    try:
        manifest = None if path is None else read_manifest((root / path).parent)
    except DataError:  # the folder was removed, or its manifest is damaged: the rows still have the sizes
        manifest = None
    counts = manifest.counts.get("train", []) if manifest is not None else []
    if manifest is None or len(counts) != len(clients):
        return (), ()
    return manifest.labels or (), counts
