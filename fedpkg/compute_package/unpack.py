"""Unpacks an archive (or a folder), even an untrusted one, to a read-only package in the content-addressed cache."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fedpkg.compute_package.build import write_archive
from fedpkg.compute_package.extract import (
    Archive,
    Comparer,
    Contents,
    Differs,
    Member,
    Writer,
    check_count,
    digest_of,
    extract,
    make_folder,
    stream_bytes,
)
from fedpkg.compute_package.init_seed import with_init_seed
from fedpkg.compute_package.members import (
    BadMember,
    FileEntry,
    Kind,
    is_inside,
    shown,
    too_many_bytes,
    too_many_members,
)
from fedpkg.compute_package.review import review
from fedpkg.compute_package.spec import PackageSpec, read_spec, spec_path
from fedpkg.config import LimitsConfig
from fedpkg.errors import ArchiveError, PackageError
from fedpkg.files import open_regular, remove_tree, sha256_file

USUAL = LimitsConfig()
# A cache entry: <digest>/files/… as in the archive, and <digest>/package.json, the manifest of these files.
_MANIFEST = "package.json"
_FILES = "files"


@dataclass(frozen=True)
class UnpackedPackage:
    """A package in the cache. It must not be changed: tasks get copies of ``folder``."""

    digest: str  # sha256 of the archive
    size_bytes: int  # of the archive
    folder: Path  # contains fedn.yaml
    top: str  # its name in the archive; "" if fedn.yaml is at the root
    root: Path  # contains exactly the files of the archive
    spec: PackageSpec
    files: tuple[FileEntry, ...]  # named as in the archive
    contents: str  # sha256 of the manifest, and so of all that was unpacked

    def warnings(self) -> tuple[str, ...]:
        """Warnings about its files."""
        skip = len(self.top) + 1 if self.top else 0
        inside = [(name[skip:], size_bytes) for name, size_bytes in self.files if is_inside(name, self.top)]
        return review(self.folder, inside, self.spec)


def open_package(
    path: Path,
    cache: Path,
    limits: LimitsConfig = USUAL,
    *,
    admit: Callable[[str], object] | None = None,
    on_record: Mapping[str, str] | None = None,
    made: str | None = None,
) -> UnpackedPackage:
    """Unpack a tar archive (gz, bz2, xz or plain) or a folder into ``cache/<sha256>/``, or find it there.

    A folder is packed first, so that both have the same digest and take the same path. An existing entry is compared
    with the archive byte for byte, and unpacked again if it differs. A refused archive leaves no files behind. Several
    processes may unpack the same archive at the same time.

    Args:
        admit: Called with the archive's digest before any of it is parsed; it may raise.
        on_record: digest → ``UnpackedPackage.contents``, from a place that tasks cannot write to. An existing entry
            with this digest is checked against its own manifest, without decompressing the archive.
        made: The text of the fedn.yaml of a folder that has none.

    Raises:
        ArchiveError: If it is unsafe, damaged or too big; the message has the member and the rule.
        SpecError: If its fedn.yaml is wrong.
        PackageError: If the file does not exist.
    """
    with archive_of(path, cache, limits, made) as file:
        if path.is_dir() and spec_path(path).exists():
            read_spec(spec_path(path))  # so that mistakes are reported in the user's own file
        return _open(file, str(path), cache, limits, admit, on_record)


@contextmanager
def archive_of(
    path: Path, place: Path | None, limits: LimitsConfig = USUAL, made: str | None = None
) -> Iterator[BinaryIO]:
    """The archive at a path or, for a folder, one made of it: a temporary file without a name in ``place``.

    ``made``: the text of the fedn.yaml of a folder that has none.
    """
    if not path.is_dir():
        with open_archive(path) as file:
            yield file
        return
    if place is not None:
        place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=place) as packed:
        write_archive(path, packed, limits, made)
        packed.flush()
        yield packed


def open_archive(archive: Path) -> BinaryIO:
    """An archive's file, opened but not parsed. Raises PackageError if it does not exist or cannot be read."""
    if not archive.is_file():
        what = "is not a file" if archive.exists() else "does not exist"
        raise PackageError(
            f"package {archive} {what}", hint="give the path of a .tar.gz or a folder", path=str(archive)
        )
    try:
        return open_regular(archive)
    except OSError as error:
        raise PackageError(f"{archive}: cannot be read: {error.strerror}", path=str(archive)) from error


def package_digest(path: Path) -> str:
    """The digest of an archive or, if ``path`` is a folder, of the archive made of it; it is not unpacked."""
    with archive_of(path, None) as file:
        return digest_of(file)


def _open(
    file: BinaryIO,
    label: str,
    cache: Path,
    limits: LimitsConfig,
    admit: Callable[[str], object] | None,
    on_record: Mapping[str, str] | None,
) -> UnpackedPackage:
    max_bytes, max_members = limits.package_bytes, limits.package_members
    try:
        size_bytes = os.fstat(file.fileno()).st_size
        if size_bytes > stream_bytes(max_bytes, max_members):
            raise too_many_bytes(max_bytes)  # before reading: a sparse file of a terabyte would take an hour
        digest = digest_of(file)
        if admit is not None:
            admit(digest)
        archive = Archive(file, label, size_bytes, digest, max_bytes, max_members)
        entry = cache / digest
        contents = _as_recorded(entry, (on_record or {}).get(digest)) or _as_archived(entry, archive)
        if contents is None:
            cache.mkdir(parents=True, exist_ok=True)
            with _locked(cache):
                contents = _as_archived(entry, archive) or _fill(entry, archive)
        # Another call may have unpacked it with higher limits.
        if sum(member.size_bytes for member in contents.members) > max_bytes:
            raise too_many_bytes(max_bytes)
        if len(contents.members) > max_members:
            raise too_many_members(max_members)
    except BadMember as error:
        place = f"{label}: member {shown(error.member)}" if error.member is not None else label
        raise ArchiveError(
            f"{place}: {error.rule}",
            hint=error.hint or "build the archive again: fedpkg package build FOLDER -o package.tar.gz",
            path=label,
            member=error.member,
            rule=error.rule,
        ) from None
    return _unpacked(entry, digest, size_bytes, contents)


def find_package(digest: str, cache: Path, *, contents: str = "") -> UnpackedPackage:
    """A package in the cache, by its digest; all its files are read and compared with its manifest.

    Args:
        contents: ``UnpackedPackage.contents`` as recorded elsewhere. Without it, a change of both a file and the
            manifest is not noticed.

    Raises:
        PackageError: If it is no longer in the cache, or was changed.
    """
    entry = cache / digest
    hint = "unpack the same archive (or folder) again: fedpkg package inspect ARCHIVE"
    if not entry.exists():
        raise PackageError(f"package {digest[:12]} is no longer in {cache}", hint=hint, digest=digest)
    found = _read_manifest(entry)
    problems = package_problems(entry)
    if found is None or problems or (contents and found.digest != contents):
        problem = problems[0] if problems else f"its {_MANIFEST} was changed"
        raise PackageError(
            f"package {digest[:12]} in {cache} was changed after it was unpacked: {problem}", hint=hint, digest=digest
        )
    return _unpacked(entry, digest, 0, found)


def unpacked_members(digest: str, cache: Path) -> tuple[Path, list[Member]]:
    """The folder of fedn.yaml of a package in the cache, and what the package consists of, without reading its files.

    Raises:
        PackageError: If it is not in the cache, or its manifest is damaged.
    """
    found = _read_manifest(cache / digest)
    if found is None:
        raise PackageError(f"package {digest[:12]} is not in the cache of the home, or is damaged there", digest=digest)
    return cache / digest / _FILES / found.folder, found.members


def _unpacked(entry: Path, digest: str, size_bytes: int, contents: Contents) -> UnpackedPackage:
    folder = entry / _FILES / contents.folder
    return UnpackedPackage(
        digest=digest,
        size_bytes=size_bytes,
        folder=folder,
        top=contents.folder,
        root=entry / _FILES,
        spec=with_init_seed(folder, read_spec(spec_path(folder))),
        files=tuple(
            FileEntry(member.name, member.size_bytes) for member in contents.members if member.kind is Kind.FILE
        ),
        contents=contents.digest,
    )


@contextmanager
def _locked(cache: Path) -> Iterator[None]:
    """Only one process at a time unpacks. If it dies, the lock is released, and the next one removes its files."""
    with open(cache / ".lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for stale in cache.glob(".unpack-*"):
            remove_tree(stale)
        yield


def _as_recorded(entry: Path, contents: str | None) -> Contents | None:
    """The entry's contents, if its manifest is the recorded one and all files match it."""
    found = _read_manifest(entry) if contents else None
    if found is None or found.digest != contents or package_problems(entry):
        return None
    return found


def _as_archived(entry: Path, archive: Archive) -> Contents | None:
    """The entry's contents, if all its files match the archive; its own manifest is not trusted."""
    if not entry.exists():
        return None
    with suppress(Differs, OSError):
        contents = extract(archive, Comparer(entry / _FILES))
        if (entry / _MANIFEST).read_bytes() == contents.manifest and not _strangers(entry, contents):
            return contents
    return None


def _read_manifest(entry: Path) -> Contents | None:
    try:
        manifest = json.loads((entry / _MANIFEST).read_bytes())
        members = [
            Member(name, Kind(kind), size_bytes, content) for name, kind, size_bytes, content in manifest["members"]
        ]
        return Contents(manifest["folder"], members)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_amiss(entry: Path, member: Member) -> str | None:
    """What is wrong with a member, from its metadata alone."""
    try:
        status = os.lstat(f"{entry}/{_FILES}/{member.name}")
    except OSError as error:
        return "is missing" if isinstance(error, FileNotFoundError) else f"cannot be examined: {error.strerror}"
    mode = status.st_mode
    is_kind = {Kind.FILE: stat.S_ISREG, Kind.FOLDER: stat.S_ISDIR, Kind.LINK: stat.S_ISLNK}[member.kind]
    if not is_kind(mode):
        return "is of another type than it was"
    if member.kind is Kind.FILE and status.st_size != member.size_bytes:
        return f"has {status.st_size} bytes, not {member.size_bytes}"
    return None


def package_problems(entry: Path) -> list[str]:
    """What was changed in a cache entry after it was unpacked; every file is read."""
    contents = _read_manifest(entry)
    if contents is None:
        return [f"it was not unpacked completely, or its {_MANIFEST} is damaged"]
    problems = []
    for member in contents.members:
        path = entry / _FILES / member.name
        problem = _is_amiss(entry, member)
        try:
            if problem is None and member.kind is Kind.FILE and sha256_file(path) != member.content:
                problem = "was changed"
            if problem is None and member.kind is Kind.LINK and os.readlink(path) != member.content:
                problem = "has another target than it had"
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
        if problem is not None:
            problems.append(f"{shown(member.name)} {problem}")
    return [*problems, *(f"{shown(name)} does not belong to it" for name in _strangers(entry, contents))]


def _strangers(entry: Path, contents: Contents) -> list[str]:
    """Files in the entry that are not members of the archive."""
    known = {member.name for member in contents.members}
    found: list[str] = []
    for folder, folders, files in os.walk(entry / _FILES):
        names = {os.path.relpath(os.path.join(folder, name), entry / _FILES) for name in (*folders, *files)}
        found += sorted(names - known)
    return found


def _fill(entry: Path, archive: Archive) -> Contents:
    """Unpack into a sibling folder, then rename that to the entry."""
    check_count(archive)
    remove_tree(entry)
    temporary = entry.with_name(f".unpack-{entry.name}")
    try:
        make_folder(temporary)
        make_folder(temporary / _FILES)
        contents = extract(archive, Writer(temporary / _FILES))
        (temporary / _MANIFEST).write_bytes(contents.manifest)
        temporary.rename(entry)
    except BaseException:
        remove_tree(temporary)
        raise
    return contents
