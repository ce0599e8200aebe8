"""Tasks' private working copies of the package; a copy that a task left unchanged is reused for the next client."""

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

# Inode times have a resolution of 1 to 10 ms: they do not distinguish writes within one clock tick.
_TICKS_NS = 100_000_000

# For each file and folder: type and mode, inode, number of links, size, mtime and ctime.
_Facts: TypeAlias = "dict[str, tuple[int, ...]]"


NOTE = (
    "package-files.json"  # in a version of a client's state: unchanged files of the package that are not stored in it
)


@dataclass
class _Copy:
    """A copy with ``facts`` as fedpkg has made it."""

    root: Path  # of the package
    path: Path
    links: Mapping[str, Shared]
    facts: _Facts
    settled: bool = False  # the facts are old enough to show any later change


class WorkingCopies:
    """Gives each task a private version folder (``package``, ``state``), and takes back unchanged ones.

    Most tasks leave the folder unchanged. It is then moved to the next client instead of being removed and copied again
    (0.3 ms instead of 1.8). Its inodes show whether it is unchanged, as no program can set ctime. Only if ctime is too
    coarse to tell, just after the copying, the bytes are compared.

    Big files of the package are hard links to a file that tasks share (`PackageFiles`). A client's state does not
    contain them: a note in it names the files to link again.
    """

    def __init__(self, folder: Path, files: PackageFiles) -> None:
        self._folder = folder
        self._files = files
        self._lock = threading.Lock()
        self._count = 0
        self._spare: list[_Copy] = []
        self._given: dict[str, _Copy] = {}  # by task: its copy of the unpacked package
        self._links: dict[str, Mapping[str, Shared]] = {}  # by task
        self._linked: dict[Path, set[str]] = {}  # by link to data: the tasks that use it
        self._private: dict[str, list[str]] = {}  # by task that runs again: big files of which it has private copies

    def put(self, job: Job, *, private: bool = False) -> None:
        """Make ``job.place.version``, which must not exist, from the client's state, or from the package.

        With ``private``, it shares no files with other tasks. The result of an order for all clients is always private.
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
        """Whether the files that a task shares are unchanged after it, by the task itself and by others."""
        return self._files.are_as_given(job.place.version, self._links.get(job.task_id, {}))

    def take_back(self, job: Job) -> bool:
        """Remove the folder of a task that has ended, if the client has nothing to keep; whether that is so."""
        copy, links = self._given.pop(job.task_id, None), self._links.pop(job.task_id, {})
        try:
            touched = copy is None or not _is_untouched(job.place.version, copy)
            self._unlink(job)
            is_as_unpacked = copy is not None and (
                (copy.settled and not touched) or _is_as_unpacked(job, links, big_files=not touched)
            )
        except FileNotFoundError:  # the task removed its own folder, so there is nothing to keep
            touched = is_as_unpacked = True
        except OSError:  # it cannot be read, so the client has changed it
            touched, is_as_unpacked = True, False
        if copy is not None and is_as_unpacked and not touched and not job.links:
            self._private.pop(job.task_id, None)
            self._put_by(copy, job.place.version)
            return True
        names = self._files.take(job.place.version, links)
        names += drop_unchanged(job.package.root, job.place.version, self._private.pop(job.task_id, ()))
        if copy is not None and is_as_unpacked:  # this copy cannot be reused
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
        """Remove the folder of a failed task, which leaves its client's state unchanged."""
        self._given.pop(job.task_id, None)
        self._private.pop(job.task_id, None)
        self._files.take(job.place.version, self._links.pop(job.task_id, {}))
        with contextlib.suppress(OSError, DispatchError):
            self._unlink(job)
        remove_tree(job.place.version)

    def _link(self, job: Job) -> None:
        """Put links to the client's data where the package expects them, replacing what is there."""
        for name, target in job.linked.items():
            link = _place_of(job, name)
            if link is None:  # removing and linking would happen at the target
                raise DispatchError(f"{job.order.client_id} has replaced its working folder with a link")
            with self._lock:
                users = self._linked.setdefault(link, set())
                is_there = bool(users) and link.is_symlink() and os.readlink(link) == str(target)
                users.add(job.task_id)
                if not is_there:
                    link.parent.mkdir(parents=True, exist_ok=True)
                    remove_tree(link)
                    link.symlink_to(target)

    def _unlink(self, job: Job) -> None:
        """Remove the links and the folders made for them, as they do not belong to the client's state.

        A link outside the version folder stays while another running task of the client uses it.
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
        """Remove the copies that no task uses."""
        with self._lock:
            self._spare.clear()
            remove_tree(self._folder)
        self._files.clear()


def _remove_made_for(link: Path, job: Job) -> None:
    """Remove empty folders around a link, except folders of the package, the version and the client."""
    for folder in itertools.takewhile(job.place.package.__ne__, link.parents):
        if folder.is_relative_to(job.place.package):
            of_the_package = job.package.root / folder.relative_to(job.place.package)
            if of_the_package.is_dir():
                return
        elif folder == job.place.version or not folder.is_relative_to(job.place.version.parent):
            return
        try:
            folder.rmdir()
        except OSError:  # it is not empty
            return


def _place_of(job: Job, name: str) -> Path | None:
    """The path of a link; None if the task has replaced a folder on the way with a link.

    Raises:
        DispatchError: the path is outside the client's own folder.
    """
    own = job.place.version.parent
    link = Path(os.path.normpath(job.working_folder / name))
    if not link.is_relative_to(own) or link == own:
        raise DispatchError(f"clients.links: {name} is outside the folder that belongs to {job.order.client_id} alone")
    inside = os.path.relpath(link.parent, own)
    return (
        link if os.path.realpath(link.parent) == os.path.normpath(os.path.join(os.path.realpath(own), inside)) else None
    )


def _read_note(state: Path) -> list[str]:
    """Names of the files of the package that belong into a copy of a state."""
    try:
        return [str(name) for name in json.loads((state / NOTE).read_bytes())]
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise DispatchError(f"{state / NOTE} is damaged: {error}") from error


def _write_note(version: Path, names: list[str]) -> None:
    if version.is_symlink():  # such a state is refused
        return
    remove_tree(version / NOTE)  # the task may have made it
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
            is_link = name.startswith("/package/") and name[len("/package/") :] in links  # checked elsewhere
            found[name] = (*what[:2], 0) if is_link else (*what, facts.st_mtime_ns, facts.st_ctime_ns)
    return found


def _is_untouched(folder: Path, copy: _Copy) -> bool:
    try:
        return _facts(folder, copy.links) == copy.facts
    except OSError:  # without permissions, or nested deeper than the longest possible path
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
    """Whether a working copy is equal to the package, byte for byte. Big files are only read if requested."""
    folder, max_bytes = job.place.version, None if big_files else LINK_ABOVE_BYTES
    if job.package.left is not None:
        return same_files(job.package.left, folder, max_bytes=max_bytes, but=_in_version(links))
    return (
        sorted(os.listdir(folder)) == ["package", "state"]
        and not os.listdir(folder / "state")
        and same_files(job.package.root, package_in(folder), max_bytes=max_bytes, but=links)
    )
