"""Moves what a task left behind out of its reach."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedpkg.dispatch.site import Job
from fedpkg.dispatch.staging import model_words, named_seeds
from fedpkg.files import remove_tree, same_bytes
from fedpkg.formats.base import SEED_SUFFIXES
from fedpkg.formats.metadata import metadata_path
from fedpkg.replies.reading import JSON_BYTES
from fedpkg.types import ReplyKind
from fedpkg.waist.answer import Refused

if TYPE_CHECKING:
    from fedpkg.dispatch.keepers import Call, Outcome


@dataclass(frozen=True)
class Taken:
    """A reply at a path that no client can write to by mistake."""

    path: Path
    size_bytes: int


def collect(job: Job) -> Taken:
    """Move what a task wrote out of its reach. Call it only when all the task's processes have ended.

    Raises:
        Refused: no file matches the specification.
    """
    kind, asked = job.spec.kind, job.place.out
    out = next(_seeds(job, asked), None) or _no_seed(job, asked) if kind is ReplyKind.SEED else asked
    limit = job.reading.max_bytes
    kept = job.place.reply / out.name
    try:
        kept.parent.mkdir()
    except FileExistsError:  # the path is predictable: a task may have put something there
        remove_tree(kept.parent)
        kept.parent.mkdir()
    size_bytes = take(out, kept, max_bytes=limit)
    metadata_file = next(filter(os.path.lexists, (metadata_path(out), metadata_path(asked))), metadata_path(out))
    if metadata_file.exists() or metadata_file.is_symlink():
        take(metadata_file, metadata_path(kept), max_bytes=JSON_BYTES)
    return Taken(kept, size_bytes)


def _seeds(job: Job, out: Path) -> Iterator[Path]:
    """Where `build` may have written: the requested path, a path in its command, or the path that FEDn's packages use.

    Files that a command names must be in or beside the working copy of the package.
    """
    beside = out.with_name(f"{out.name}.npz")  # np.savez adds the suffix, even if a .safetensors file was requested
    yield from filter(os.path.lexists, (out, beside))
    if job.leads_elsewhere:
        return
    given, own = job.package.folder, job.working_folder
    for word in named_seeds(job):
        path = own / word
        if os.path.lexists(path) and path.parent.resolve().is_relative_to(own.parent.resolve()):
            yield path
    for folder, before in ((own.parent, given.parent if given != job.package.root else None), (own, given)):
        for suffix in SEED_SUFFIXES:
            path = folder / f"seed{suffix}"
            earlier = None if before is None else before / path.name
            if os.path.lexists(path) and not (earlier and earlier.is_file() and same_bytes(path, earlier)):
                yield path


def _no_seed(job: Job, out: Path) -> Path:
    """The file that is missing, for the message. Raises Refused itself if the command names the file."""
    named = [word for word in model_words(job) if word in named_seeds(job) or os.path.isabs(word)]
    if named:
        where = "in the package's folder or beside it"
        raise Refused("no_file", f"the command names '{named[0]}', but there is no such file {where}")
    return out


def take(source: Path, target: Path, *, max_bytes: int | None) -> int:
    """Move a file out of a task's reach; its size in bytes. It must be a regular file with one hard link."""
    try:
        facts = source.lstat()
    except FileNotFoundError:
        raise Refused("no_file", f"the task wrote no '{source.name}'") from None
    if stat.S_ISLNK(facts.st_mode):
        raise Refused("not_a_file", f"'{source.name}' is a symbolic link; a reply must be a regular file")
    if not stat.S_ISREG(facts.st_mode):
        raise Refused("not_a_file", f"'{source.name}' is not a regular file")
    if facts.st_nlink != 1:
        raise Refused("not_a_file", f"'{source.name}' has {facts.st_nlink} hard links; a reply must have one")
    if max_bytes is not None and facts.st_size > max_bytes:
        source.unlink()  # otherwise a client could fill the disk, round after round
        message = f"'{source.name}' had {facts.st_size} bytes; at most {max_bytes} are accepted (limits.reply_bytes)"
        raise Refused("too_big", message)
    os.rename(source, target)
    os.chmod(target, 0o444)
    return facts.st_size


def keep_logs(call: Call, outcome: Outcome) -> None:
    """Make sure that both logs are regular files: if a task has replaced one, it gets the end of the output again."""
    for path, tail in ((call.stdout, outcome.stdout_tail), (call.stderr, outcome.stderr_tail)):
        with suppress(OSError):  # a log that is missing is not a failure of the task
            with suppress(FileNotFoundError):
                facts = path.lstat()
                if stat.S_ISREG(facts.st_mode) and facts.st_nlink == 1:
                    continue
                remove_tree(path)  # a link to another file, or a pipe that would block readers
            path.write_text(tail)
