"""A task's private copy of its package; one that a task left as it was serves the next client."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import threading
import time
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from fedpkg.dispatch.package_files import PackageFiles, Shared, drop_unchanged, inventory
from fedpkg.dispatch.site import Job
from fedpkg.errors import DispatchError
from fedpkg.files import LINK_ABOVE_BYTES, copy_tree, remove_tree, same_files, walk
from fedpkg.waist.place import package_in

# Inodes' times move in ticks of 1 to 10 ms: what was written within the same tick cannot be told apart by them.
_TICKS_NS = 100_000_000

# Of each file and folder: type and mode, inode, number of names, size, times of the last change and status change.
_Facts: TypeAlias = "dict[str, tuple[int, ...]]"


NOTE = (
    "package-files.json"  # in a version of a client's state: files of the package that are not in it, but as they were
)


@dataclass
class _Copy:
    """Untouched as far as we know, with ``facts`` as we left them."""

    root: Path  # of the package
    path: Path
    links: Mapping[str, Shared]
    facts: _Facts
    settled: bool = False  # when it was given out the facts were so old that any change since shows in them


class WorkingCopies:
    """Gives each task a version folder (``package``, ``state``) of its own, and takes back those that nothing changed.

    Most tasks leave theirs as it was unpacked. Such a folder is moved to the next client instead of being removed and
    copied anew (0.3 ms instead of 1.8). Whether it is as it was is read off its inodes: the time of a status change is
    nothing that a program can set. Only where that time is too coarse to tell, just after the copying, are the bytes
    compared.

    Big files of the package are links to a file that tasks share (`PackageFiles`). A client's state does not hold them:
    a note in it names those that are to be linked again.
    """

    def __init__(self, folder: Path, files: PackageFiles) -> None:
        self._folder = folder
        self._files = files
        self._lock = threading.Lock()
        self._count = 0
        self._spare: list[_Copy] = []
        self._given: dict[str, _Copy] = {}  # by task: what it got of the package as it was unpacked
        self._links: dict[str, Mapping[str, Shared]] = {}  # by task
        self._linked: dict[Path, set[str]] = {}  # links to data: the tasks that have them
        self._private: dict[str, list[str]] = {}  # by task that runs again: big files that it got as its own

    def put(self, job: Job, *, private: bool = False) -> None:
        """Make ``job.place.version``, which must not exist: from the client's state, else from the package.

        With ``private`` nobody else has any of its files. What an order for all clients leaves is whole.
        """
        root, private = job.package.root, private or job.order.is_for_all
        if job.state is not None:
            copy_tree(job.state, job.place.version, but=(NOTE,))
            links = self._put_big_files(job, _read_note(job.state), private=private)
            self._link(job)
        elif not (job.links or private) and (copy := self._take(root)) is not None:
            os.rename(copy.path, job.place.version)
            copy.settled = time.time_ns() - max(facts[-1] for facts in copy.facts.values()) > _TICKS_NS
            links = dict(copy.links)
            self._given[job.task_id] = copy
        else:
            _copy_small_files(job)
            links = self._put_big_files(job, inventory(root).big, private=private)
            self._link(job)
            facts = _facts(job.place.version, links)
            self._given[job.task_id] = _Copy(root, job.place.version, links, facts)
        self._links[job.task_id] = links

    def _put_big_files(self, job: Job, names: Sequence[str], *, private: bool) -> dict[str, Shared]:
        links = {}
        for name in names:
            target = package_in(job.place.version) / name
            if shared := self._files.put(job.package.root / name, target, private=private):
                links[name] = shared
        if private and not job.order.is_for_all:
            self._private[job.task_id] = list(names)
        return links

    def _take(self, root: Path) -> _Copy | None:
        with self._lock:
            for number, copy in enumerate(self._spare):
                if copy.root == root and self._files.are_as_given(copy.path, copy.links):
                    return self._spare.pop(number)
        return None

    def has_links(self, job: Job) -> bool:
        return bool(self._links.get(job.task_id))

    def is_as_given(self, job: Job) -> bool:
        """A task has ended: has it left alone what it shares with others, and others likewise?"""
        return self._files.are_as_given(job.place.version, self._links.get(job.task_id, {}))

    def take_back(self, job: Job) -> bool:
        """A task is done, its processes are gone: did it leave its client nothing to keep? Then its folder goes."""
        copy, links = self._given.pop(job.task_id, None), self._links.pop(job.task_id, {})
        try:
            touched = copy is None or not _is_untouched(job.place.version, copy)
            self._unlink(job)
            is_as_unpacked = copy is not None and (
                (copy.settled and not touched) or _is_as_unpacked(job, links, big_files=not touched)
            )
        except FileNotFoundError:  # it removed its own folder: nothing to keep, either
            touched = is_as_unpacked = True
        except OSError:  # it cannot be read: then it is as the client wants it
            touched, is_as_unpacked = True, False
        if copy is not None and is_as_unpacked and not touched and not job.links:
            self._private.pop(job.task_id, None)
            self._put_by(copy, job.place.version)
            return True
        names = self._files.take(job.place.version, links)
        names += drop_unchanged(job.package.root, job.place.version, self._private.pop(job.task_id, ()))
        if copy is not None and is_as_unpacked:  # such a copy is its client's own
            remove_tree(job.place.version)
            return True
        _write_note(job.place.version, names)
        return False

    def _put_by(self, copy: _Copy, folder: Path) -> None:
        with self._lock:
            if not self._count:
                remove_tree(self._folder)  # left by a controller that was killed
                self._folder.mkdir(parents=True)
            self._count += 1
            copy.path = self._folder / str(self._count)
            os.rename(folder, copy.path)
            self._spare.append(copy)

    def discard(self, job: Job) -> None:
        """A task failed: it leaves no trace in its client's state."""
        self._given.pop(job.task_id, None)
        self._private.pop(job.task_id, None)
        self._files.take(job.place.version, self._links.pop(job.task_id, {}))
        with contextlib.suppress(OSError, DispatchError):
            self._unlink(job)
        remove_tree(job.place.version)

    def _link(self, job: Job) -> None:
        """Put links to the client's data where its package looks for them; what has their names gives way."""
        for name, target in job.linked.items():
            link = _place_of(job, name)
            if link is None:  # what we remove and make would be there
                raise DispatchError(f"{job.order.client_id} has kept a link in the place of its working folder")
            with self._lock:
                users = self._linked.setdefault(link, set())
                is_there = bool(users) and link.is_symlink() and os.readlink(link) == str(target)
                users.add(job.task_id)
                if not is_there:
                    link.parent.mkdir(parents=True, exist_ok=True)
                    remove_tree(link)
                    link.symlink_to(target)

    def _unlink(self, job: Job) -> None:
        """Take the links away again, with folders that were made for them: they are no part of the client's state.

        One beside the version of the state stays as long as another task of the client runs that has it, too.
        """
        for name in job.linked:
            if (link := _place_of(job, name)) is None:
                continue
            with self._lock:
                users = self._linked.get(link, set())
                users.discard(job.task_id)
                if users:
                    continue
                self._linked.pop(link, None)
                if link.is_symlink():
                    link.unlink()
                    _remove_made_for(link, job)

    def clear(self) -> None:
        """Remove the copies that no task has."""
        with self._lock:
            self._spare.clear()
            remove_tree(self._folder)
        self._files.clear()


def _remove_made_for(link: Path, job: Job) -> None:
    """Remove the empty folders that a link was in, apart from those of the package, the version and the client."""
    for folder in itertools.takewhile(job.place.package.__ne__, link.parents):
        if folder.is_relative_to(job.place.package):
            of_the_package = job.package.root / folder.relative_to(job.place.package)
            if of_the_package.is_dir():
                return
        elif folder == job.place.version or not folder.is_relative_to(job.place.version.parent):
            return
        try:
            folder.rmdir()
        except OSError:  # there is something else in it
            return


def _place_of(job: Job, name: str) -> Path | None:
    """Where a link lies; None: the task has put a link in the place of a folder on the way.

    Raises:
        DispatchError: that is not the client's own.
    """
    own = job.place.version.parent
    link = Path(os.path.normpath(job.working_folder / name))
    if not link.is_relative_to(own) or link == own:
        raise DispatchError(f"clients.links: {name} is above all that belongs to {job.order.client_id} alone")
    inside = os.path.relpath(link.parent, own)
    return (
        link if os.path.realpath(link.parent) == os.path.normpath(os.path.join(os.path.realpath(own), inside)) else None
    )


def _read_note(state: Path) -> list[str]:
    """Names of the files of the package that are to be put into a copy of a state."""
    try:
        return [str(name) for name in json.loads((state / NOTE).read_bytes())]
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise DispatchError(f"{state / NOTE} is damaged: {error}") from error


def _write_note(version: Path, names: list[str]) -> None:
    if version.is_symlink():  # it is refused
        return
    remove_tree(version / NOTE)  # which the task may have put there
    if names:
        (version / NOTE).write_text(json.dumps(names))


def _facts(folder: Path, links: Container[str]) -> _Facts:
    found: _Facts = {}
    top = len(str(folder))
    for _, entries in walk(folder):
        for entry in entries:
            facts = entry.stat(follow_symlinks=False)
            what = (facts.st_mode, facts.st_ino, facts.st_nlink, facts.st_size)
            name = entry.path[top:]
            is_link = name.startswith("/package/") and name[len("/package/") :] in links  # it is looked at elsewhere
            found[name] = (*what[:2], 0) if is_link else (*what, facts.st_mtime_ns, facts.st_ctime_ns)
    return found


def _is_untouched(folder: Path, copy: _Copy) -> bool:
    try:
        return _facts(folder, copy.links) == copy.facts
    except OSError:  # it took away permissions, or nested folders deeper than any path can say
        return False


def _copy_small_files(job: Job) -> None:
    version, big = job.place.version, inventory(job.package.root).big
    if job.package.left is not None:
        copy_tree(job.package.left, version, but=_in_version(big))
        return
    version.mkdir(mode=0o700)
    copy_tree(job.package.root, package_in(version), but=big)
    (version / "state").mkdir()


def _in_version(names: Iterable[str]) -> frozenset[str]:
    """Paths of files of the package, inside a version folder."""
    return frozenset(str(package_in(Path()) / name) for name in names)


def _is_as_unpacked(job: Job, links: Mapping[str, Shared], *, big_files: bool) -> bool:
    """Whether a working copy holds what the package holds, byte for byte. Big files are worth reading only if asked."""
    folder, max_bytes = job.place.version, None if big_files else LINK_ABOVE_BYTES
    if job.package.left is not None:
        return same_files(job.package.left, folder, max_bytes=max_bytes, but=_in_version(links))
    return (
        sorted(os.listdir(folder)) == ["package", "state"]
        and not os.listdir(folder / "state")
        and same_files(job.package.root, package_in(folder), max_bytes=max_bytes, but=links)
    )
