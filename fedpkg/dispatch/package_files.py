"""Big files of a package: one copy for all tasks, which is replaced where a task wrote to it."""

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

MOST_SHARED = 64  # files; for isolated tasks each is a mount


@dataclass(frozen=True)
class Inventory:
    """What a package's tree holds."""

    files: int  # and folders
    big: tuple[str, ...]  # paths of the biggest files, inside the tree


@functools.lru_cache(maxsize=16)
def inventory(root: Path) -> Inventory:
    """What an unpacked package's tree holds; it does not change while fedpkg runs."""
    entries = [entry for _, found in walk(root) for entry in found]
    files = [entry for entry in entries if entry.is_file(follow_symlinks=False)]
    sizes = {entry.path[len(str(root)) + 1 :]: entry.stat(follow_symlinks=False).st_size for entry in files}
    big = sorted(
        (name for name, size in sizes.items() if size > LINK_ABOVE_BYTES), key=lambda name: (-sizes[name], name)
    )
    return Inventory(len(entries), tuple(big[:MOST_SHARED]))


@dataclass
class Shared:
    """A file that tasks have under names of their own."""

    source: Path  # in the package
    path: Path
    facts: tuple[int, ...]  # as we left them
    is_spoilt: bool = False


class PackageFiles:
    """Gives tasks read-only links to big files of the package, and tells where one was written to.

    What they share is a copy of the package's file: the cache itself is never within reach of a task. As its owner may
    make it writable, and root need not, its inode is looked at after each task: a write shows in the time of the last
    change, and whatever sets that back shows in the time of the last status change, which no program can set. Names
    that come and go change it too, so those of our own do so here only, and one at a time. Anything else counts as a
    write. Nobody can say then which tasks have read it, or which one wrote it: all that had it run again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._count = 0
        self._shared: dict[Path, Shared] = {}  # by the package's file: what tasks get now
        self._reflinks: bool | None = None  # whether there are such here; None: not known yet

    def put(self, source: Path, target: Path, *, private: bool) -> Shared | None:
        """Put a file of the package at ``target``; None if that is a file of its own, which may be written to."""
        if not private:
            with self._lock:
                shared = self._current(source)
                if shared is not None and self._change(shared, lambda: os.link(shared.path, target)):
                    return shared
        copy_file(source, target)
        target.chmod(_mode_in_copy(source))
        return None

    def are_as_given(self, version: Path, links: Mapping[str, Shared]) -> bool:
        """Whether a task has left its links, by their names in its version folder, where and as they were."""
        with self._lock:
            return not any(self._is_spoilt(shared) for shared in links.values()) and all(
                is_in_place(version, name, shared.facts[0]) for name, shared in links.items()
            )

    def take(self, version: Path, links: Mapping[str, Shared]) -> list[str]:
        """Remove links from a version folder; names of those that were in their place."""
        with self._lock:
            taken = [name for name, shared in links.items() if is_in_place(version, name, shared.facts[0])]
            for name in taken:
                self._change(links[name], (package_in(version) / name).unlink)
        return taken

    def clear(self) -> None:
        """Remove the copies; tasks that still have one keep theirs."""
        with self._lock:
            self._shared.clear()
            remove_tree(self._folder)

    def _current(self, source: Path) -> Shared | None:
        """What tasks share of a file; None where each can have a copy that takes no room (reflinks)."""
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
        os.utime(copy, ns=(facts.st_atime_ns, facts.st_mtime_ns))  # older than any write, even in the same tick
        self._shared[source] = Shared(source, copy, _facts(copy))
        return self._shared[source]

    def _change(self, shared: Shared, change: Callable[[], None]) -> bool:
        """Add or remove a name of a file, which changes its inode; False where that cannot be done."""
        self._is_spoilt(shared)
        try:
            change()
        except OSError:  # links cannot be made here
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
    """Remove from a version folder private copies that are still the package's file, byte for byte; their names."""
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
    """Whether a regular file lies where the package had it, and no link on the way leads elsewhere."""
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
