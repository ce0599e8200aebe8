"""Makes harmless what a task leaves in its folders, and refuses what cannot be kept as its client's state."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from fedpkg.dispatch.limits import exceeded
from fedpkg.dispatch.package_files import inventory
from fedpkg.dispatch.site import Job
from fedpkg.files import MAX_LEVELS, copy_file, mount_of, open_folder, walk
from fedpkg.waist.answer import Refused

MAX_PATH_BYTES = 2048  # inside a state: together with its folder's path, short enough for system calls
ENTRY_BYTES = 4096  # the least that a file or folder counts, as in the task's keeper


@dataclass(frozen=True)
class _Found:
    size_bytes: int
    files: int  # and folders


def check_state(job: Job) -> None:
    """Make the version folder of a task safe to copy for the next one, also if fedpkg runs as root.

    Sockets, pipes and devices are removed, set-id bits and capabilities are cleared, hard links become separate files,
    and the owner gets read and write permission for everything.

    Raises:
        Refused: the folder cannot be kept (`bad_state`), or exceeds a limit of the task.
    """
    found = _secure(job.place.version, as_state=True)
    measured = {"folder_bytes": found.size_bytes, "folder_files": found.files - inventory(job.package.root).files}
    for limit, value in measured.items():
        most = getattr(job.order.limits, limit)
        if most is not None and value > most:
            failure = exceeded(f"'{job.order.entry_point}'", limit, value, job.order.limits)
            raise Refused(failure.kind, failure.message)


def seal(job: Job) -> None:
    """Make what a task has left for all clients read-only: clients start from copies, with links to its big files.

    Raises:
        Refused: the folder of fedn.yaml no longer exists.
    """
    if job.leads_elsewhere or not job.working_folder.is_dir():
        raise _bad("no longer has the folder of fedn.yaml, from which clients start")
    for _, entries in walk(job.place.version):
        for entry in entries:
            if not entry.is_symlink():
                os.chmod(entry.path, stat.S_IMODE(entry.stat(follow_symlinks=False).st_mode) & ~0o222)


def is_disarmed(folder: Path) -> bool:
    """Make harmless what a task left in its own folder; False if that is impossible."""
    try:
        _secure(folder, as_state=False)
    except Refused:
        return not os.path.lexists(folder)
    return True


def _secure(top: Path, *, as_state: bool) -> _Found:
    size_bytes = files = 0
    pending = [(str(top), 0)]
    try:
        owner = top.parent.stat().st_uid  # not always this user's id: some network file systems map ids
        mount = _mount_of(str(top.parent))
        _mend(str(top), top.lstat(), owner, as_state=as_state)
        while pending:
            path, level = pending.pop()
            if level > MAX_LEVELS:
                raise _bad(f"has folders nested deeper than {MAX_LEVELS} levels")
            if len(os.fsencode(path)) - len(os.fsencode(top)) > MAX_PATH_BYTES:
                raise _bad(f"has paths longer than {MAX_PATH_BYTES} bytes")
            if _mount_of(path) != mount:
                raise _bad(f"has something mounted on {os.path.relpath(path, top)!r}")
            with os.scandir(path) as entries:
                for entry in list(entries):  # some of them are replaced
                    facts = entry.stat(follow_symlinks=False)
                    size_bytes += max(ENTRY_BYTES, facts.st_size, facts.st_blocks * 512)
                    files += 1
                    has_names = as_state and stat.S_ISREG(facts.st_mode) and facts.st_nlink > 1
                    if has_names or _has_capabilities(entry.path, facts):
                        facts = _split(Path(entry.path))
                    _mend(entry.path, facts, owner, as_state=as_state)
                    if stat.S_ISDIR(facts.st_mode):
                        pending.append((entry.path, level + 1))
    except OSError as error:
        name = "" if error.filename is None else f" {os.path.relpath(error.filename, top)!r}"
        raise _bad(f"has something that cannot be kept:{name} {os.strerror(error.errno or errno.EIO)}") from error
    return _Found(size_bytes, files)


def _bad(what: str) -> Refused:
    return Refused("bad_state", f"what the task left in its folders {what}")


def _mount_of(path: str) -> str:
    fd = open_folder(path)
    try:
        return mount_of(fd)
    finally:
        os.close(fd)


def _has_capabilities(path: str, facts: os.stat_result) -> bool:
    """Whether an executable file has capabilities (``setcap``)."""
    if not (stat.S_ISREG(facts.st_mode) and facts.st_mode & 0o111 and hasattr(os, "listxattr")):
        return False
    try:
        return "security.capability" in os.listxattr(path, follow_symlinks=False)
    except OSError:  # this file system has no extended attributes
        return False


def _split(path: Path) -> os.stat_result:
    """Replace a file with a copy, which has no other hard links and no extended attributes."""
    copy = path.with_name(f".{os.urandom(8).hex()}")
    copy_file(path, copy)
    copy.replace(path)
    return path.lstat()


def _mend(path: str, facts: os.stat_result, owner: int, *, as_state: bool) -> None:
    """Set the owner and the permissions of a file that is kept; remove special files."""
    if facts.st_uid != owner:
        os.chown(path, owner, -1, follow_symlinks=False)
    if stat.S_ISLNK(facts.st_mode):
        return
    is_folder = stat.S_ISDIR(facts.st_mode)
    if not (is_folder or stat.S_ISREG(facts.st_mode)):
        os.unlink(path)
        return
    mode = stat.S_IMODE(facts.st_mode) & ~(stat.S_ISUID | stat.S_ISGID)
    if as_state or is_folder:
        mode |= 0o700 if is_folder else 0o600
    if mode != stat.S_IMODE(facts.st_mode):
        os.chmod(path, mode)
