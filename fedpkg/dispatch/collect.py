"""What a task left behind: taken out of its reach, then checked against what was asked."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedpkg.dispatch.base import Failure, Task
from fedpkg.errors import ModelFileError
from fedpkg.files import remove_tree
from fedpkg.formats.metadata import metadata_path, num_examples, read_metadata, read_metrics
from fedpkg.types import Json, ReplyKind

if TYPE_CHECKING:
    from fedpkg.weights.weights import Weights

DEFAULT_REPLY_BYTES = 16 << 20
JSON_BYTES = 16 << 20
# A weighted sum of 2**24 such terms stays below the largest float32: one client cannot make the mean infinite.
LARGEST_TERM = 3.4e38 * 2.0**-24


class Refused(Exception):
    """The reply is not what was asked; carries the failure to record."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.failure = Failure(kind, message)


@dataclass(frozen=True)
class Reply:
    """A checked reply, in a place that no client can write to by mistake."""

    path: Path
    size_bytes: int
    metadata: Mapping[str, Json]
    weights: Weights | None = None
    num_examples: float | None = None
    metrics: Json = None


def collect(task: Task, out: Path) -> Reply:
    """Take and check what a task wrote. Call it only when all the task's processes are gone.

    Raises:
        Refused: the reply is not as asked.
    """
    limit = JSON_BYTES if task.reply_kind is ReplyKind.METRICS else reply_limit(task)
    kept = task.folder.with_name(task.folder.name + ".reply") / out.name
    try:
        kept.parent.mkdir()
    except FileExistsError:  # the place is known before: a task may have put something there
        remove_tree(kept.parent)
        kept.parent.mkdir()
    size_bytes = take(out, kept, max_bytes=limit)
    metadata_file = metadata_path(out)
    if metadata_file.exists() or metadata_file.is_symlink():
        take(metadata_file, metadata_path(kept), max_bytes=JSON_BYTES)
    return read_reply(task, kept, size_bytes=size_bytes, limit=limit)


def read_reply(task: Task, kept: Path, *, size_bytes: int, limit: int | None = None) -> Reply:
    """Read and check a reply that was taken already (also again, when a session resumes).

    Raises:
        Refused: the reply is not as asked.
    """
    metadata = _metadata(kept)
    if task.reply_kind is ReplyKind.METRICS:
        try:
            metrics = read_metrics(kept)
        except ModelFileError as error:
            raise Refused("bad_json", error.message) from error
        return Reply(kept, size_bytes, metadata, metrics=metrics)
    if task.reply_kind is ReplyKind.UPDATE:
        weights, magnitudes = _update(task, kept, max_bytes=limit or reply_limit(task))
        try:
            examples = num_examples(metadata)
        except ModelFileError as error:
            raise Refused("num_examples", error.message) from error
        for name, magnitude in magnitudes.items():
            if magnitude * examples > LARGEST_TERM and weights[name].itemsize < 8:
                message = (
                    f"tensor '{name}' has values up to {magnitude:.3g}, too large to average over {examples:g} examples"
                )
                raise Refused("too_large", message)
        return Reply(kept, size_bytes, metadata, weights=weights, num_examples=examples)
    return Reply(kept, size_bytes, metadata)


def reply_limit(task: Task) -> int | None:
    """Bytes that a model file from a client may have: as configured, else twice the global model and some room."""
    if task.reply_bytes is not None:
        return task.reply_bytes
    if task.template is not None:
        return 2 * task.template.num_bytes + DEFAULT_REPLY_BYTES
    return None


def take(source: Path, target: Path, *, max_bytes: int | None) -> int:
    """Move a file out of a task's reach; its size in bytes. Only a regular file with one name will do."""
    try:
        facts = source.lstat()
    except FileNotFoundError:
        raise Refused("no_file", f"it wrote no '{source.name}'") from None
    if stat.S_ISLNK(facts.st_mode):
        raise Refused("not_a_file", f"'{source.name}' is a symbolic link; a reply must be a file of its own")
    if not stat.S_ISREG(facts.st_mode):
        raise Refused("not_a_file", f"'{source.name}' is not a regular file")
    if facts.st_nlink != 1:
        raise Refused("not_a_file", f"'{source.name}' has {facts.st_nlink} names (hard links); a reply must have one")
    if max_bytes is not None and facts.st_size > max_bytes:
        source.unlink()  # or a client could fill the disk, round after round
        message = f"'{source.name}' had {facts.st_size} bytes; at most {max_bytes} are taken (limits.reply_bytes)"
        raise Refused("too_big", message)
    source.rename(target)
    os.chmod(target, 0o444)
    return facts.st_size


def _metadata(kept: Path) -> dict[str, Json]:
    if not metadata_path(kept).exists():
        return {}
    try:
        return read_metadata(kept, max_bytes=JSON_BYTES)
    except ModelFileError as error:
        raise Refused("bad_metadata", error.message) from error


def _update(task: Task, path: Path, *, max_bytes: int | None) -> tuple[Weights, dict[str, float]]:
    """An update that fits, and its tensors' largest magnitudes."""
    from fedpkg.formats.model_file import read_model

    try:
        weights = read_model(path, max_bytes=max_bytes)
    except ModelFileError as error:
        raise Refused("bad_file", error.message) from error
    if task.template is not None and (reason := weights.mismatch(task.template)):
        raise Refused("mismatch", reason)
    magnitudes = dict(weights.magnitudes())
    for name, magnitude in magnitudes.items():
        if not math.isfinite(magnitude):
            raise Refused("not_finite", f"tensor '{name}' has NaN or infinite values")
    return weights, magnitudes
