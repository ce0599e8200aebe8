"""What ``startup: once`` left for the clients of a session, for a call by hand that repeats one of its tasks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from fedpkg.dispatch.site import PackageOnDisk
from fedpkg.errors import FedpkgError
from fedpkg.files import copy_file, copy_tree, walk
from fedpkg.stores.home import Home
from fedpkg.stores.opening import open_store
from fedpkg.waist.order import ALL
from fedpkg.waist.place import IN_A_VERSION, package_in, states_folder


@dataclass(frozen=True)
class Started:
    """The state from which all clients of a session start, and the digest of the session's package."""

    version: Path
    package_digest: str


def started_before(task: Path) -> Started | None:
    """What the session of a task, whose folder this is, gave to all its clients; None without ``startup: once``."""
    session = task.absolute().parent.parent.parent
    versions = states_folder(session, ALL)
    found = [path for path in versions.iterdir() if path.is_dir()] if versions.is_dir() else []
    if len(found) != 1:
        return None
    try:
        with open_store(Home(session.parent.parent), read_only=True) as store:
            return Started(found[0], store.get_session(session.name).package_digest)
    except FedpkgError:  # the folder is not in a home, or in one of another version
        return None


def with_started(package: PackageOnDisk, started: Started, folder: Path) -> PackageOnDisk:
    """The package as it was after startup.

    If it has changed since, its own files are kept, and the files that startup has added are copied beside them into a
    version of a state in ``folder``.
    """
    if package.digest == started.package_digest:
        return package.started(started.version)
    version = folder / "started"
    version.mkdir()
    copy_tree(package.root, package_in(version))
    _add(package_in(started.version), package_in(version))
    for name in IN_A_VERSION:
        if (started.version / name).is_dir() and not (version / name).exists():
            copy_tree(started.version / name, version / name)
    return package.started(version)


def _add(source: Path, target: Path) -> None:
    """Copy files and links that ``target`` does not have."""
    for _, entries in walk(source):
        for entry in entries:
            place = target / os.path.relpath(entry.path, source)
            if os.path.lexists(place) or not (entry.is_symlink() or entry.is_file()):
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            if entry.is_symlink():
                place.symlink_to(os.readlink(entry.path))
            else:
                copy_file(Path(entry.path), place)
