"""From an archive (or a folder) to a read-only package in the content-addressed cache, whoever made the archive."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from fedpkg.compute_package.build import write_archive
from fedpkg.compute_package.members import (
    FileEntry,
    Kind,
    Members,
    Refused,
    is_inside,
    link_target,
    normal_name,
    shown,
    too_many_bytes,
    too_many_members,
)
from fedpkg.compute_package.spec import SPEC_FILE, SPEC_FILES, PackageSpec, read_spec, spec_path
from fedpkg.compute_package.tarstream import TarMember, TarStream
from fedpkg.errors import ArchiveError, PackageError
from fedpkg.files import remove_tree, sha256_file

# A cache entry: <digest>/files/… as in the archive, and <digest>/package.json that says what must be there.
_MANIFEST = "package.json"
_FILES = "files"
# Headers and padding of a member, beside its bytes; a stream that needs more is not one of tar's.
_OVERHEAD_BYTES = 4 << 10
_SLACK_BYTES = 1 << 20


@dataclass(frozen=True)
class UnpackedPackage:
    """A package in the cache. Nothing in it may be changed: tasks get copies of ``folder``."""

    digest: str  # sha256 of the archive
    size_bytes: int  # of the archive
    folder: Path  # holds fedn.yaml
    top: str  # its name in the archive; "" where fedn.yaml is at the root
    root: Path  # holds what the archive holds, and nothing else
    spec: PackageSpec
    files: tuple[FileEntry, ...]  # named as in the archive


class _Member(NamedTuple):
    name: str
    kind: Kind
    size_bytes: int  # of a file
    content: str  # a file's sha256, a link's target


@dataclass(frozen=True)
class _Contents:
    """What a cache entry holds."""

    folder: str  # of fedn.yaml inside the archive; "" is its root
    members: list[_Member]


def open_package(path: Path, cache: Path, *, max_bytes: int, max_members: int) -> UnpackedPackage:
    """Unpack ``path``, an archive or a folder. A folder is packed first, so both have one digest and go one way."""
    if not path.is_dir():
        return unpack_package(path, cache, max_bytes=max_bytes, max_members=max_members)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=cache) as file:  # nameless: it goes away with this process, however that ends
        write_archive(path, file)
        file.flush()
        read_spec(spec_path(path))  # mistakes are reported in the person's own file
        return _open(file, str(path), cache, max_bytes, max_members)


def unpack_package(archive: Path, cache: Path, *, max_bytes: int, max_members: int) -> UnpackedPackage:
    """Unpack a tar archive (gz, bz2, xz or plain) into ``cache/<sha256>/``, or find it there.

    Nothing of a refused archive stays, and another process may unpack the same one at the same time.

    Raises:
        ArchiveError: unsafe, damaged or too big; the message names the member and the rule.
        SpecError: its fedn.yaml is wrong.
        PackageError: there is no such file.
    """
    if not archive.is_file():
        what = "is not a file" if archive.exists() else "does not exist"
        raise PackageError(f"package {archive} {what}", hint="name a .tar.gz or a folder", path=str(archive))
    try:
        file = open(archive, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise PackageError(f"{archive}: cannot be read: {error.strerror}", path=str(archive)) from error
    with file:
        return _open(file, str(archive), cache, max_bytes, max_members)


def _open(file: BinaryIO, label: str, cache: Path, max_bytes: int, max_members: int) -> UnpackedPackage:
    try:
        before = os.fstat(file.fileno())
        digest = _digest(file)
        entry = cache / digest
        contents = _find(entry)
        if contents is None:
            cache.mkdir(parents=True, exist_ok=True)
            with _locked(cache):
                contents = _find(entry) or _fill(entry, file, label, before, max_bytes, max_members)
        # What another call unpacked under wider limits is still too much for this one.
        if sum(member.size_bytes for member in contents.members) > max_bytes:
            raise too_many_bytes(max_bytes)
        if len(contents.members) > max_members:
            raise too_many_members(max_members)
    except Refused as error:
        place = f"{label}: member {shown(error.member)}" if error.member is not None else label
        raise ArchiveError(
            f"{place}: {error.rule}",
            hint=error.hint or "make the archive again: fedpkg package build FOLDER -o package.tar.gz",
            path=label,
            member=error.member,
            rule=error.rule,
        ) from None
    return _unpacked(entry, digest, before.st_size, contents)


def find_package(digest: str, cache: Path) -> UnpackedPackage:
    """A package that was unpacked before, by its digest.

    Raises:
        PackageError: it is not in the cache any more.
    """
    contents = _find(cache / digest)
    if contents is None:
        raise PackageError(
            f"package {digest[:12]} is no longer in {cache}",
            hint="unpack the same archive again: fedpkg package inspect ARCHIVE",
            digest=digest,
        )
    return _unpacked(cache / digest, digest, 0, contents)


def _unpacked(entry: Path, digest: str, size_bytes: int, contents: _Contents) -> UnpackedPackage:
    folder = entry / _FILES / contents.folder
    return UnpackedPackage(
        digest=digest,
        size_bytes=size_bytes,
        folder=folder,
        top=contents.folder,
        root=entry / _FILES,
        spec=read_spec(spec_path(folder)),
        files=tuple(
            FileEntry(member.name, member.size_bytes) for member in contents.members if member.kind is Kind.FILE
        ),
    )


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


@contextmanager
def _locked(cache: Path) -> Iterator[None]:
    """One process at a time unpacks; a dead one lets go by itself, and what it left behind is removed."""
    with open(cache / ".lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for stale in cache.glob(".unpack-*"):
            remove_tree(stale)
        yield


def _find(entry: Path) -> _Contents | None:
    """The entry's contents if all of it is there (people and cleaners of temporary folders delete things)."""
    contents = _read_manifest(entry)
    if contents is None or any(_is_amiss(entry, member) for member in contents.members):
        return None
    return contents


def _read_manifest(entry: Path) -> _Contents | None:
    try:
        manifest = json.loads((entry / _MANIFEST).read_bytes())
        members = [
            _Member(name, Kind(kind), size_bytes, content) for name, kind, size_bytes, content in manifest["members"]
        ]
        return _Contents(manifest["folder"], members)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_amiss(entry: Path, member: _Member) -> str | None:
    """What is wrong with a member, as far as a look without reading it says."""
    try:
        status = os.lstat(f"{entry}/{_FILES}/{member.name}")
    except OSError as error:
        return "is missing" if isinstance(error, FileNotFoundError) else f"cannot be looked at: {error.strerror}"
    mode = status.st_mode
    is_kind = {Kind.FILE: stat.S_ISREG, Kind.FOLDER: stat.S_ISDIR, Kind.LINK: stat.S_ISLNK}[member.kind]
    if not is_kind(mode):
        return "is something else than it was"
    if member.kind is Kind.FILE and status.st_size != member.size_bytes:
        return f"has {status.st_size} bytes, not {member.size_bytes}"
    return None


def package_problems(entry: Path) -> list[str]:
    """What is not as it was unpacked in a folder of the cache; every file is read."""
    contents = _read_manifest(entry)
    if contents is None:
        return [f"it was not unpacked to the end, or its {_MANIFEST} is damaged"]
    problems = []
    for member in contents.members:
        path = entry / _FILES / member.name
        problem = _is_amiss(entry, member)
        try:
            if problem is None and member.kind is Kind.FILE and sha256_file(path) != member.content:
                problem = "was changed"
            if problem is None and member.kind is Kind.LINK and os.readlink(path) != member.content:
                problem = "leads elsewhere than it did"
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
        if problem is not None:
            problems.append(f"{shown(member.name)} {problem}")
    known = {member.name for member in contents.members}
    for folder, folders, files in os.walk(entry / _FILES):
        names = {os.path.relpath(os.path.join(folder, name), entry / _FILES) for name in (*folders, *files)}
        problems += [f"{shown(name)} does not belong to it" for name in sorted(names - known)]
    return problems


def _fill(
    entry: Path, file: BinaryIO, label: str, before: os.stat_result, max_bytes: int, max_members: int
) -> _Contents:
    """Unpack into a sibling, then put it in place whole."""
    remove_tree(entry)
    temporary = entry.with_name(f".unpack-{entry.name}")
    try:
        _make_folder(temporary)
        contents = _extract(file, temporary / _FILES, label, max_bytes=max_bytes, max_members=max_members)
        manifest = {"folder": contents.folder, "members": contents.members}
        (temporary / _MANIFEST).write_text(json.dumps(manifest, ensure_ascii=False), encoding="utf-8")
        after = os.fstat(file.fileno())
        if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise Refused("the archive changed while it was read", hint="wait until it is written, then try again")
        temporary.rename(entry)
    except BaseException:
        remove_tree(temporary)
        raise
    return contents


def _extract(file: BinaryIO, root: Path, label: str, *, max_bytes: int, max_members: int) -> _Contents:
    """Write the archive's files below ``root``. Links are made last: until then no path can lead elsewhere."""
    _make_folder(root)
    file.seek(0)
    stream = TarStream(
        file,
        max_stream_bytes=max_bytes + max_members * _OVERHEAD_BYTES + _SLACK_BYTES,
        too_big=too_many_bytes(max_bytes),
    )
    members = Members(max_members)
    sizes: dict[str, int] = {}
    digests: dict[str, str] = {}
    links: dict[str, str] = {}
    unpacked_bytes = 0
    for member in stream.members():
        name, kind = normal_name(member.name), _kind(member)
        if not name:  # "./", the folder from which tar was called
            if kind is not Kind.FOLDER:
                raise Refused("only a folder can have this name", member=member.name)
            continue
        for folder in members.add(name, kind):
            _make_folder(root / folder)
        if kind is Kind.LINK:
            links[name] = member.target
        elif kind is Kind.FILE:
            source = None
            size_bytes = member.size_bytes
            if member.type == tarfile.LNKTYPE:
                source = normal_name(member.target, member=name)
                if source == name or source not in sizes:
                    raise Refused(f"it is a hard link to {shown(member.target)}, no file before it", member=name)
                size_bytes = sizes[source]
            unpacked_bytes += size_bytes  # a file that has fewer bytes than it states is refused as truncated
            if unpacked_bytes > max_bytes:
                raise too_many_bytes(max_bytes, member=name)
            if source is not None:
                shutil.copy(root / source, root / name)
                digests[name] = digests[source]
            else:
                digests[name] = _write_file(root / name, stream, executable=member.executable)
            sizes[name] = size_bytes
    spec = _spec_member(members)
    folder = spec.rpartition("/")[0]
    read_spec(root / spec, where=f"{label}: {spec}")
    for name, target in links.items():
        resolved = link_target(name, target)
        if is_inside(name, folder) and not is_inside(resolved, folder):
            raise Refused(f"its target {shown(target)} is outside the package", member=name)
        (root / name).symlink_to(target)
    content = {**digests, **links}
    return _Contents(
        folder,
        [_Member(name, kind, sizes.get(name, 0), content.get(name, "")) for name, kind in members.kinds.items()],
    )


def _kind(member: TarMember) -> Kind:
    if member.type == tarfile.DIRTYPE:
        return Kind.FOLDER
    return Kind.LINK if member.type == tarfile.SYMTYPE else Kind.FILE


def _make_folder(path: Path) -> None:
    path.mkdir()
    path.chmod(0o755)  # whatever the umask


def _write_file(path: Path, stream: TarStream, *, executable: bool) -> str:
    """Write a member's bytes; their sha256."""
    digest = hashlib.sha256()
    with open(path, "xb") as out:
        for block in stream.data():
            out.write(block)
            digest.update(block)
        os.fchmod(out.fileno(), 0o555 if executable else 0o444)
    return digest.hexdigest()


def _spec_member(members: Members) -> str:
    """The package's fedn.yaml (or scaleout.yaml): at the archive's root, or in the one top-level folder that has it."""
    shallow = [name for name in members.kinds if name.rpartition("/")[2] in SPEC_FILES and name.count("/") <= 1]
    specs = [name for name in shallow if "/" not in name] or shallow  # one further down is just a file of this package
    if not specs:
        deeper = next((name for name in members.kinds if name.endswith(tuple(f"/{file}" for file in SPEC_FILES))), None)
        where = f" ({shown(deeper)} is too deep)" if deeper else ""
        raise Refused(f"there is no {SPEC_FILE} at its root or in a top-level folder{where}")
    if len({name.rpartition("/")[0] for name in specs}) > 1:
        raise Refused(f"more than one top-level folder has a {SPEC_FILE}: {', '.join(map(shown, sorted(specs)))}")
    spec = min(specs, key=lambda name: SPEC_FILES.index(name.rpartition("/")[2]))
    if members.kinds[spec] is not Kind.FILE:
        raise Refused(f"{spec.rpartition('/')[2]} must be an ordinary file", member=spec)
    return spec
