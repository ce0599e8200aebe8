"""How a task that exceeds one of its limits is recorded."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fedpkg.files import walk
from fedpkg.waist.answer import Failure
from fedpkg.waist.order import LEAST_SESSIONS, PROCESSES_EACH, Limits

if TYPE_CHECKING:
    from fedpkg.dispatch.keepers import Outcome

# For each limit that a keeper enforces: the kind of the failure, the key of the limit, and the message.
_ENDED = {
    "memory_bytes": ("memory", "memory_bytes", "was ended with {:.0f} bytes of memory in use"),
    "cpu_s": ("cpu_time", "cpu_s", "was ended after {:.1f} s of processor time"),
    "folder_bytes": ("folder_size", "folder_bytes", "had {:.0f} bytes in its folders and in unlinked files"),
    "folder_files": (
        "folder_files",
        "folder_files",
        "had {:.0f} files and folders in its folders, not counting those of its package",
    ),
    "processes": (
        "processes",
        "processes",
        "was ended with {:.0f} processes (threads are counted if there are very many)",
    ),
    "sessions": (
        "processes",
        "processes",
        "was ended with {:.0f} process sessions (setsid), which take processor time from other clients; a task "
        f"may have {LEAST_SESSIONS}, or one for every {PROCESSES_EACH} processes that its limit allows",
    ),
}


def failure_of(name: str, limits: Limits, outcome: Outcome, folders: Iterable[Path]) -> Failure | None:
    """The failure of a task that was ended at a limit, or that failed at one, by its signal, log or file sizes."""
    if outcome.limit is not None:
        return exceeded(name, outcome.limit, outcome.measured, limits)
    ended = f"{name} ended with " + (f"signal {outcome.signal}" if outcome.signal else f"code {outcome.exit_code}")
    if limits.cpu_s is not None and _died_of(signal.SIGXCPU, outcome):
        return _failure("cpu_time", f"{ended} because it had used all of its processor time", "cpu_s", limits)
    if limits.file_bytes is not None and (
        _died_of(signal.SIGXFSZ, outcome)
        or (outcome.exit_code and (_says(errno.EFBIG, outcome) or limits.file_bytes in map(_size, _files(folders))))
    ):
        return _failure("file_size", f"{ended} because of a file that is too large", "file_bytes", limits)
    if limits.open_files is not None and outcome.exit_code and _says(errno.EMFILE, outcome):
        return _failure("open_files", f"{ended} because of too many open files", "open_files", limits)
    return None


def exceeded(name: str, limit: str, measured: float, limits: Limits) -> Failure:
    """The failure of a task that has exceeded a limit."""
    if limit == "path":
        return Failure("bad_state", f"{name} nested folders deeper than the longest possible path")
    kind, key, words = _ENDED[limit]
    return _failure(kind, f"{name} {words.format(measured)}", key, limits)


def _failure(kind: str, what: str, key: str, limits: Limits) -> Failure:
    return Failure(kind, f"{what}; limits.{key} is {getattr(limits, key)}")


def says_forbidden(outcome: Outcome) -> bool:
    """Whether the end of a task's log contains the error of a write that is not permitted."""
    return any(_says(number, outcome) for number in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY))


def _died_of(number: int, outcome: Outcome) -> bool:
    return outcome.signal == number or outcome.exit_code == 128 + number  # the exit code of a shell


def _says(number: int, outcome: Outcome) -> bool:
    tail = outcome.stderr_tail + outcome.stdout_tail
    return f"[Errno {number}]" in tail or os.strerror(number) in tail


def _files(folders: Iterable[Path]) -> Iterator[Path]:
    for top in folders:
        for _, entries in walk(top):
            yield from (Path(entry.path) for entry in entries)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return -1
