"""Big files of a package: tasks share one copy, which is replaced if a task has written to it."""

from __future__ import annotations

import functools
import os
import stat
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedpkg.files import LINK_ABOVE_BYTES, copy_file, reflink, remove_tree, same_bytes, walk
from fedpkg.waist.place import package_in

MOST_SHARED = 64  # files; each is a mount for isolated tasks


@dataclass(frozen=True)
class Inventory:
    """What a package's folder contains."""

    files: int  # and folders
    big: tuple[str, ...]  # paths of the biggest files, inside the tree


@functools.lru_cache(maxsize=16)
def inventory(root: Path) -> Inventory:
    """What an unpacked package's folder contains; it does not change while fedpkg runs."""
    entries = [entry for _, found in walk(root) for entry in found]
    files = [entry for entry in entries if entry.is_file(follow_symlinks=False)]
    sizes = {entry.path[len(str(root)) + 1 :]: entry.stat(follow_symlinks=False).st_size for entry in files}
    big = sorted(
        (name for name, size in sizes.items() if size > LINK_ABOVE_BYTES), key=lambda name: (-sizes[name], name)
    )
    return Inventory(len(entries), tuple(big[:MOST_SHARED]))


@dataclass
class Shared:
    """A file to which tasks have hard links."""

    source: Path  # in the package
    path: Path
    facts: tuple[int, ...]  # after our last change
    is_spoilt: bool = False


class PackageFiles:
    """Gives tasks read-only hard links to big files of the package, and detects writes to them.

    The links lead to a copy of the package's file, so the cache itself is out of the reach of tasks. Its owner can
    make the copy writable, and root can write to it as it is, so its inode is checked after each task: a write changes
    mtime, and resetting mtime changes ctime, which no program can set. Adding and removing links changes ctime too, so
    our own links change only here, one at a time. Any other change counts as a write. As it is then unknown which
    tasks have read or written the copy, all tasks that had it run again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._count = 0
        self._shared: dict[Path, Shared] = {}  # the current copy of each file of the package
        self._reflinks: bool | None = None  # whether the file system has reflinks; None: not known yet

    def put(self, source: Path, target: Path, *, private: bool) -> Shared | None:
        """Put a file of the package at ``target``; None if ``target`` is a private copy, which may be written to."""
        if not private:
            with self._lock:
                shared = self._current(source)
                if shared is not None and self._change(shared, lambda: os.link(shared.path, target)):
                    return shared
        copy_file(source, target)
        target.chmod(_mode_in_copy(source))
        return None

    def are_as_given(self, version: Path, links: Mapping[str, Shared]) -> bool:
        """Whether a task has left its links unchanged and in place. ``links``: by name in its version folder."""
        with self._lock:
            return not any(self._is_spoilt(shared) for shared in links.values()) and all(
                is_in_place(version, name, shared.facts[0]) for name, shared in links.items()
            )

    def take(self, version: Path, links: Mapping[str, Shared]) -> list[str]:
        """Remove links from a version folder; the names of those that were in place."""
        with self._lock:
            taken = [name for name, shared in links.items() if is_in_place(version, name, shared.facts[0])]
            for name in taken:
                self._change(links[name], (package_in(version) / name).unlink)
        return taken

    def clear(self) -> None:
        """Remove the copies; tasks that have links keep them."""
        with self._lock:
            self._shared.clear()
            remove_tree(self._folder)

    def _current(self, source: Path) -> Shared | None:
        """The copy of a file that tasks share; None if reflinks make private copies that take no space."""
        shared = self._shared.get(source)
        if self._reflinks or (shared is not None and not self._is_spoilt(shared)):
            return shared
        if not self._count:
            remove_tree(self._folder)  # left by a controller that was killed
            self._folder.mkdir(mode=0o700, parents=True)
        self._count += 1
        copy = self._folder / str(self._count)
        if self._reflinks is None:
            with open(source, "rb") as src, open(copy, "xb") as dst:
                self._reflinks = reflink(src, dst)
            copy.unlink()
            if self._reflinks:
                return None
        copy_file(source, copy)
        facts = source.stat()
        copy.chmod(_mode(source) & 0o555)
        os.utime(copy, ns=(facts.st_atime_ns, facts.st_mtime_ns))  # older than any write, even within a tick
        self._shared[source] = Shared(source, copy, _facts(copy))
        return self._shared[source]

    def _change(self, shared: Shared, change: Callable[[], None]) -> bool:
        """Add or remove a link, which changes the inode; False if that is impossible."""
        self._is_spoilt(shared)
        try:
            change()
        except OSError:  # the file system has no hard links
            return False
        now = _facts(shared.path)
        if now[:-1] == shared.facts[:-1]:
            shared.facts = now
        return True

    def _is_spoilt(self, shared: Shared) -> bool:
        if not shared.is_spoilt and _facts(shared.path) != shared.facts:
            shared.is_spoilt = True
            if self._shared.get(shared.source) is shared:
                del self._shared[shared.source]
            shared.path.unlink(missing_ok=True)
        return shared.is_spoilt


def drop_unchanged(root: Path, version: Path, names: Iterable[str]) -> list[str]:
    """Remove private copies that are equal to the package's file from a version folder; their names."""
    dropped = []
    for name in names:
        path = package_in(version) / name
        if is_in_place(version, name) and _mode_in_copy(root / name) == _mode(path) and same_bytes(root / name, path):
            path.unlink()
            dropped.append(name)
    return dropped


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _mode_in_copy(source: Path) -> int:
    return _mode(source) | stat.S_IWUSR


def is_in_place(version: Path, name: str, inode: int | None = None) -> bool:
    """Whether a regular file is at its path in the package, without symbolic links on the way."""
    path = package_in(version) / name
    around = os.path.join(os.path.realpath(version), os.path.relpath(path.parent, version))
    try:
        facts = path.lstat()
    except OSError:
        return False
    return (
        os.path.realpath(path.parent) == around
        and stat.S_ISREG(facts.st_mode)
        and (inode is None or facts.st_ino == inode)
    )


def _facts(path: Path) -> tuple[int, ...]:
    try:
        facts = path.lstat()
    except FileNotFoundError:
        return (-1,)
    return facts.st_ino, facts.st_mode, facts.st_uid, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns
