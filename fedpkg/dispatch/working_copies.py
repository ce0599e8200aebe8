"""A task's private copy of its package; one that a task left as it was serves the next client."""

from __future__ import annotations

import functools
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from fedpkg.dispatch.base import Task, leads_elsewhere, working_folder
from fedpkg.errors import DispatchError
from fedpkg.files import LINK_ABOVE_BYTES, copy_tree, remove_tree, same_files, walk

# Inodes' times move in ticks of 1 to 10 ms: what was written within the same tick cannot be told apart by them.
_TICKS_NS = 100_000_000

# Of each file and folder: type and mode, inode, number of names, size, times of the last change and status change.
_Facts: TypeAlias = "dict[str, tuple[int, ...]]"


@dataclass
class _Copy:
    """Untouched as far as we know, with ``facts`` as we left them."""

    root: Path  # of the package
    path: Path
    facts: _Facts
    settled: bool = False  # when it was given out the facts were so old that any change since shows in them


@dataclass(frozen=True)
class Inventory:
    """What a package's tree holds."""

    files: int  # and folders


@functools.lru_cache(maxsize=16)
def inventory(root: Path) -> Inventory:
    """What an unpacked package's tree holds; it does not change while fedpkg runs."""
    return Inventory(sum(len(entries) for _, entries in walk(root)))


class WorkingCopies:
    """Gives each task a version folder (``package``, ``state``) of its own, and takes back those that nothing changed.

    Most tasks leave theirs as it was unpacked. Such a folder is moved to the next client instead of being removed and
    copied anew (0.3 ms instead of 1.8). Whether it is as it was is read off its inodes: the time of a status change is
    nothing that a program can set. Only where that time is too coarse to tell, just after the copying, are the bytes
    compared.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._count = 0
        self._spare: list[_Copy] = []
        self._given: dict[str, _Copy] = {}  # by task

    def put(self, task: Task) -> None:
        """Make ``task.next_state``, which must not exist: from the client's state, else from the package."""
        if task.state is not None:
            copy_tree(task.state, task.next_state)
            _link(task)
            return
        copy = None if task.links else self._take(task.package.root)
        if copy is not None:
            copy.path.rename(task.next_state)
            copy.settled = time.time_ns() - max(facts[-1] for facts in copy.facts.values()) > _TICKS_NS
        else:
            task.next_state.mkdir(mode=0o700)
            copy_tree(task.package.root, task.next_state / "package")
            (task.next_state / "state").mkdir()
            _link(task)
            copy = _Copy(task.package.root, task.next_state, _facts(task.next_state))
        with self._lock:
            self._given[task.task_id] = copy

    def _take(self, root: Path) -> _Copy | None:
        with self._lock:
            for number, copy in enumerate(self._spare):
                if copy.root == root:
                    return self._spare.pop(number)
        return None

    def take_back(self, task: Task) -> bool:
        """A task is done, its processes are gone: did it leave its client nothing to keep? Then its folder goes."""
        with self._lock:
            copy = self._given.pop(task.task_id, None)
        if copy is None:
            _unlink(task)
            return False
        try:
            touched = not _is_untouched(task.next_state, copy.facts)
            _unlink(task)
            if (touched or not copy.settled) and not _is_as_unpacked(task, big_files=not touched):
                return False
        except FileNotFoundError:  # it removed its own folder: nothing to keep, either
            touched = True
        except OSError:  # it cannot be read: then it is as the client wants it
            return False
        if touched or task.links:  # such a copy is its client's own
            remove_tree(task.next_state)
        else:
            self._put_by(copy, task.next_state)
        return True

    def _put_by(self, copy: _Copy, folder: Path) -> None:
        with self._lock:
            if not self._count:
                remove_tree(self._folder)  # left by a controller that was killed
                self._folder.mkdir(parents=True)
            self._count += 1
            copy.path = folder.rename(self._folder / str(self._count))
            self._spare.append(copy)

    def discard(self, task: Task) -> None:
        """A task failed: it leaves no trace in its client's state."""
        with self._lock:
            self._given.pop(task.task_id, None)
        remove_tree(task.next_state)

    def clear(self) -> None:
        """Remove the copies that no task has."""
        with self._lock:
            self._spare.clear()
            remove_tree(self._folder)


def _link(task: Task) -> None:
    """Put links to the client's data where its package looks for them; what has their names gives way."""
    if task.links and leads_elsewhere(task):  # what we remove and make would be there
        raise DispatchError(f"{task.client_id} has kept a link in the place of its working folder")
    for name, target in task.links.items():
        link = working_folder(task) / name
        remove_tree(link)
        link.symlink_to(target)


def _unlink(task: Task) -> None:
    """Take the links away again: they are no part of the client's state."""
    if not task.links or leads_elsewhere(task):
        return
    for name in task.links:
        link = working_folder(task) / name
        if link.is_symlink():
            link.unlink()


def _facts(folder: Path) -> _Facts:
    found: _Facts = {}
    top = len(str(folder))
    for _, entries in walk(folder):
        for entry in entries:
            facts = entry.stat(follow_symlinks=False)
            what = (facts.st_mode, facts.st_ino, facts.st_nlink, facts.st_size)
            found[entry.path[top:]] = (*what, facts.st_mtime_ns, facts.st_ctime_ns)
    return found


def _is_untouched(folder: Path, facts: _Facts) -> bool:
    try:
        return _facts(folder) == facts
    except OSError:  # it took away permissions, or nested folders deeper than any path can say
        return False


def _is_as_unpacked(task: Task, *, big_files: bool) -> bool:
    """Whether a working copy holds what the package holds, byte for byte. Big files are worth reading only if asked."""
    folder = task.next_state
    return (
        sorted(os.listdir(folder)) == ["package", "state"]
        and not os.listdir(folder / "state")
        and same_files(task.package.root, folder / "package", max_bytes=None if big_files else LINK_ABOVE_BYTES)
    )
