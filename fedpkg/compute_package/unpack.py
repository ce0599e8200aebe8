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
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, NamedTuple

from fedpkg.compute_package.build import write_archive
from fedpkg.compute_package.members import (
    MAX_DEPTH,
    BadMember,
    FileEntry,
    Kind,
    Members,
    is_inside,
    link_target,
    normal_name,
    shown,
    too_many_bytes,
    too_many_members,
)
from fedpkg.compute_package.review import review
from fedpkg.compute_package.spec import PackageSpec, read_spec, spec_path
from fedpkg.compute_package.tarstream import TarMember, TarStream
from fedpkg.config import LimitsConfig
from fedpkg.errors import ArchiveError, PackageError
from fedpkg.fedn.names import SPEC_FILE, SPEC_FILES
from fedpkg.files import open_regular, remove_tree, sha256_file

USUAL = LimitsConfig()
# A cache entry: <digest>/files/… as in the archive, and <digest>/package.json that says what must be there.
_MANIFEST = "package.json"
_FILES = "files"
# Headers and padding of a member, beside its bytes; a stream that needs more is not one of tar's.
_OVERHEAD_BYTES = 4 << 10
_SLACK_BYTES = 1 << 20
# What so little can become: beyond it, so many times the archive's size. gzip reaches 1032 times, bzip2 far more.
_FREE_BYTES = 256 << 20
MAX_RATIO = 100


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
    contents: str  # sha256 of the manifest, and so of all that was unpacked

    def warnings(self) -> tuple[str, ...]:
        """What deserves a second look in it."""
        skip = len(self.top) + 1 if self.top else 0
        inside = [(name[skip:], size_bytes) for name, size_bytes in self.files if is_inside(name, self.top)]
        return review(self.folder, inside, self.spec)


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

    @cached_property
    def manifest(self) -> bytes:
        return json.dumps({"folder": self.folder, "members": self.members}, ensure_ascii=False).encode()


@dataclass(frozen=True)
class _Archive:
    """An archive that is open, and how much of it may be unpacked."""

    file: BinaryIO
    label: str
    size_bytes: int
    digest: str
    max_bytes: int
    max_members: int

    @property
    def stream_limit(self) -> tuple[int, BadMember]:
        """How many bytes of tar may come out of it, and what is said when there are more."""
        by_limits = self.max_bytes + self.max_members * _OVERHEAD_BYTES + _SLACK_BYTES
        by_ratio = _FREE_BYTES + MAX_RATIO * self.size_bytes
        if by_limits <= by_ratio:
            return by_limits, too_many_bytes(self.max_bytes)
        hint = "pack it without compression, if you trust it: gunzip it, or tar -cf package.tar client"
        return by_ratio, BadMember(f"it unpacks to more than {MAX_RATIO} times its size", hint=hint)


def open_package(
    path: Path,
    cache: Path,
    limits: LimitsConfig = USUAL,
    *,
    admit: Callable[[str], object] | None = None,
    on_record: Mapping[str, str] | None = None,
) -> UnpackedPackage:
    """Unpack a tar archive (gz, bz2, xz or plain) or a folder into ``cache/<sha256>/``, or find it there.

    A folder is packed first, so both have one digest and go one way. What is found is compared with the archive byte
    for byte, and unpacked again where it differs. Nothing of a refused archive stays, and another process may unpack
    the same one at the same time.

    Args:
        admit: called with the archive's digest before anything of it is parsed; it may raise.
        on_record: digest → ``UnpackedPackage.contents``, from where tasks cannot write. What is found and has this
            digest need not be compared with the archive: its own files are read, and nothing is decompressed.

    Raises:
        ArchiveError: unsafe, damaged or too big; the message names the member and the rule.
        SpecError: its fedn.yaml is wrong.
        PackageError: there is no such file.
    """
    with archive_of(path, cache, limits) as file:
        if path.is_dir():
            read_spec(spec_path(path))  # mistakes are reported in the person's own file
        return _open(file, str(path), cache, limits, admit, on_record)


@contextmanager
def archive_of(path: Path, place: Path | None, limits: LimitsConfig = USUAL) -> Iterator[BinaryIO]:
    """The archive that a path is, or that a folder makes: a file in ``place`` without a name, which does not stay."""
    if not path.is_dir():
        with open_archive(path) as file:
            yield file
        return
    if place is not None:
        place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=place) as packed:
        write_archive(path, packed, limits)
        packed.flush()
        yield packed


def open_archive(archive: Path) -> BinaryIO:
    """The file of an archive, whatever is in it. Raises PackageError: there is none, or it cannot be read."""
    if not archive.is_file():
        what = "is not a file" if archive.exists() else "does not exist"
        raise PackageError(f"package {archive} {what}", hint="name a .tar.gz or a folder", path=str(archive))
    try:
        return open_regular(archive)
    except OSError as error:
        raise PackageError(f"{archive}: cannot be read: {error.strerror}", path=str(archive)) from error


def package_digest(path: Path) -> str:
    """The digest that a package has or, if ``path`` is a folder, would have; it is not unpacked."""
    with archive_of(path, None) as file:
        return _digest(file)


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
        if size_bytes > max_bytes + max_members * _OVERHEAD_BYTES + _SLACK_BYTES:
            raise too_many_bytes(max_bytes)  # also a sparse file of a terabyte, which to read would take an hour
        digest = _digest(file)
        if admit is not None:
            admit(digest)
        archive = _Archive(file, label, size_bytes, digest, max_bytes, max_members)
        entry = cache / digest
        contents = _as_recorded(entry, (on_record or {}).get(digest)) or _as_archived(entry, archive)
        if contents is None:
            cache.mkdir(parents=True, exist_ok=True)
            with _locked(cache):
                contents = _as_archived(entry, archive) or _fill(entry, archive)
        # What another call unpacked under wider limits is still too much for this one.
        if sum(member.size_bytes for member in contents.members) > max_bytes:
            raise too_many_bytes(max_bytes)
        if len(contents.members) > max_members:
            raise too_many_members(max_members)
    except BadMember as error:
        place = f"{label}: member {shown(error.member)}" if error.member is not None else label
        raise ArchiveError(
            f"{place}: {error.rule}",
            hint=error.hint or "make the archive again: fedpkg package build FOLDER -o package.tar.gz",
            path=label,
            member=error.member,
            rule=error.rule,
        ) from None
    return _unpacked(entry, digest, size_bytes, contents)


def find_package(digest: str, cache: Path, *, contents: str = "") -> UnpackedPackage:
    """A package that was unpacked before, by its digest; all of it is read and compared with its manifest.

    Args:
        contents: ``UnpackedPackage.contents`` as somebody noted it elsewhere: without it, who changes a file and the
            manifest with it goes unnoticed.

    Raises:
        PackageError: it is not in the cache any more, or not as it was.
    """
    entry = cache / digest
    hint = "unpack the same archive (or folder) again: fedpkg package inspect ARCHIVE"
    if not entry.exists():
        raise PackageError(f"package {digest[:12]} is no longer in {cache}", hint=hint, digest=digest)
    found = _read_manifest(entry)
    problems = package_problems(entry)
    if found is None or problems or (contents and _sha256(found.manifest) != contents):
        problem = problems[0] if problems else f"its {_MANIFEST} was changed"
        raise PackageError(
            f"package {digest[:12]} in {cache} is not as it was unpacked: {problem}", hint=hint, digest=digest
        )
    return _unpacked(entry, digest, 0, found)


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
        contents=_sha256(contents.manifest),
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


def _as_recorded(entry: Path, contents: str | None) -> _Contents | None:
    """The entry's contents, if its manifest is the one that is on record and all files are as it says."""
    found = _read_manifest(entry) if contents else None
    if found is None or _sha256(found.manifest) != contents or package_problems(entry):
        return None
    return found


def _as_archived(entry: Path, archive: _Archive) -> _Contents | None:
    """The entry's contents, if all of it is as the archive says; the manifest there is not believed."""
    if not entry.exists():
        return None
    with suppress(_Differs, OSError):
        contents = _extract(archive, _Comparer(entry / _FILES))
        if (entry / _MANIFEST).read_bytes() == contents.manifest and not _strangers(entry, contents):
            return contents
    return None


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
    return [*problems, *(f"{shown(name)} does not belong to it" for name in _strangers(entry, contents))]


def _strangers(entry: Path, contents: _Contents) -> list[str]:
    """What lies among the files and is no member."""
    known = {member.name for member in contents.members}
    found: list[str] = []
    for folder, folders, files in os.walk(entry / _FILES):
        names = {os.path.relpath(os.path.join(folder, name), entry / _FILES) for name in (*folders, *files)}
        found += sorted(names - known)
    return found


def _fill(entry: Path, archive: _Archive) -> _Contents:
    """Unpack into a sibling, then put it in place whole."""
    _check_count(archive)
    remove_tree(entry)
    temporary = entry.with_name(f".unpack-{entry.name}")
    try:
        _make_folder(temporary)
        _make_folder(temporary / _FILES)
        contents = _extract(archive, _Writer(temporary / _FILES))
        (temporary / _MANIFEST).write_bytes(contents.manifest)
        temporary.rename(entry)
    except BaseException:
        remove_tree(temporary)
        raise
    return contents


class _Digesting:
    """A file that is digested while it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def read(self, size_bytes: int) -> bytes:
        data = self._file.read(size_bytes)
        self.sha256.update(data)
        return data


class _Writer:
    """Where an archive's members go: below ``root``, which is empty."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, name: str) -> None:
        _make_folder(self.root / name)

    def file(self, name: str, blocks: Iterable[memoryview], *, executable: bool) -> str:
        """Take a file's bytes; their sha256."""
        digest = hashlib.sha256()
        with open(self.root / name, "xb") as out:
            for block in blocks:
                out.write(block)
                digest.update(block)
            os.fchmod(out.fileno(), _mode(executable=executable))
        return digest.hexdigest()

    def copy(self, name: str, source: str) -> None:
        shutil.copy(self.root / source, self.root / name)

    def link(self, name: str, target: str) -> None:
        (self.root / name).symlink_to(target)


class _Differs(Exception):
    """A file that is there is not as the archive has it."""


class _Comparer:
    """In the place of a writer: compares members with what is below ``root``, and changes nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, name: str) -> None:
        self._expect(stat.S_ISDIR(os.lstat(self.root / name).st_mode))

    def file(self, name: str, blocks: Iterable[memoryview], *, executable: bool) -> str:
        digest = hashlib.sha256()
        with self._open(name) as file:
            self._expect(stat.S_IMODE(os.fstat(file.fileno()).st_mode) == _mode(executable=executable))
            for block in blocks:
                self._expect(file.read(len(block)) == block)
                digest.update(block)
            self._expect(not file.read(1))
        return digest.hexdigest()

    def copy(self, name: str, source: str) -> None:
        with self._open(name) as file, self._open(source) as other:
            modes = [os.fstat(one.fileno()).st_mode for one in (file, other)]
            self._expect(modes[0] == modes[1] and _digest(file) == _digest(other))

    def link(self, name: str, target: str) -> None:
        self._expect(os.readlink(self.root / name) == target)

    def _open(self, name: str) -> BinaryIO:
        fd = os.open(self.root / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        file = open(fd, "rb")  # noqa: SIM115 - closed by the caller
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            file.close()
            raise _Differs
        return file

    @staticmethod
    def _expect(holds: bool) -> None:
        if not holds:
            raise _Differs


def _check_count(archive: _Archive) -> None:
    """Refuse too many members before the first of them is written. Raises BadMember."""
    archive.file.seek(0)
    stream = TarStream(archive.file, max_stream_bytes=archive.stream_limit[0], too_big=archive.stream_limit[1])
    known, too_many = {""}, None
    with suppress(BadMember):  # for any other reason: it is said when the archive is read in earnest
        for raw in stream.names():
            name = raw.rstrip("/")
            if name.startswith((".", "/")) or "//" in name or "/." in name or name.count("/") >= MAX_DEPTH:
                name = normal_name(name)
            while name not in known:
                known.add(name)
                name = name.rpartition("/")[0]
            if len(known) > archive.max_members + 1:
                too_many = raw
                break
    if too_many is not None:
        raise too_many_members(archive.max_members, member=too_many)


def _extract(archive: _Archive, sink: _Writer | _Comparer) -> _Contents:
    """Hand an archive's members to a sink. Links come last: until then no path can lead elsewhere."""
    archive.file.seek(0)
    file = _Digesting(archive.file)
    max_stream_bytes, too_big = archive.stream_limit
    stream = TarStream(file, max_stream_bytes=max_stream_bytes, too_big=too_big)
    members = Members(archive.max_members)
    sizes: dict[str, int] = {}
    digests: dict[str, str] = {}
    links: dict[str, str] = {}
    unpacked_bytes = 0
    for member in stream.members():
        name, kind = normal_name(member.name), _kind(member)
        if not name:  # "./", the folder from which tar was called
            if kind is not Kind.FOLDER:
                raise BadMember("only a folder can have this name", member=member.name)
            continue
        for folder in members.add(name, kind):
            sink.folder(folder)
        if kind is Kind.LINK:
            links[name] = member.target
        elif kind is Kind.FILE:
            source = _hard_linked(member, name, sizes)
            size_bytes = member.size_bytes if source is None else sizes[source]
            unpacked_bytes += size_bytes  # a file that has fewer bytes than it states is refused as truncated
            if unpacked_bytes > archive.max_bytes:
                raise too_many_bytes(archive.max_bytes, member=name)
            if source is not None:
                sink.copy(name, source)
                digests[name] = digests[source]
            else:
                digests[name] = sink.file(name, stream.data(), executable=member.executable)
            sizes[name] = size_bytes
    if file.sha256.hexdigest() != archive.digest:
        raise BadMember("the archive changed while it was read", hint="wait until it is written, then try again")
    spec = _spec_member(members)
    folder = spec.rpartition("/")[0]
    read_spec(sink.root / spec, where=f"{archive.label}: {spec}")
    _link(links, folder, sink)
    content = {**digests, **links}
    return _Contents(
        folder,
        [_Member(name, kind, sizes.get(name, 0), content.get(name, "")) for name, kind in members.kinds.items()],
    )


def _hard_linked(member: TarMember, name: str, before: Mapping[str, int]) -> str | None:
    """The file to which a member is a hard link; None: it is a file of its own."""
    if member.type != tarfile.LNKTYPE:
        return None
    source = normal_name(member.target, member=name)
    if source == name or source not in before:
        raise BadMember(f"it is a hard link to {shown(member.target)}, no file before it", member=name)
    return source


def _link(links: Mapping[str, str], folder: str, sink: _Writer | _Comparer) -> None:
    for name, target in links.items():
        resolved = link_target(name, target)
        if is_inside(name, folder) and not is_inside(resolved, folder):
            raise BadMember(f"its target {shown(target)} is outside the package", member=name)
        sink.link(name, target)


def _kind(member: TarMember) -> Kind:
    if member.type == tarfile.DIRTYPE:
        return Kind.FOLDER
    return Kind.LINK if member.type == tarfile.SYMTYPE else Kind.FILE


def _make_folder(path: Path) -> None:
    path.mkdir()
    path.chmod(0o755)  # whatever the umask


def _mode(*, executable: bool) -> int:
    """Of a file in the cache: whatever else the archive says, such as set-uid, is dropped."""
    return 0o555 if executable else 0o444


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _spec_member(members: Members) -> str:
    """The package's fedn.yaml (or scaleout.yaml): at the archive's root, or in the one top-level folder that has it."""
    shallow = [name for name in members.kinds if name.rpartition("/")[2] in SPEC_FILES and name.count("/") <= 1]
    specs = [name for name in shallow if "/" not in name] or shallow  # one further down is just a file of this package
    if not specs:
        deeper = next((name for name in members.kinds if name.endswith(tuple(f"/{file}" for file in SPEC_FILES))), None)
        where = f" ({shown(deeper)} is too deep)" if deeper else ""
        raise BadMember(f"there is no {SPEC_FILE} at its root or in a top-level folder{where}")
    if len({name.rpartition("/")[0] for name in specs}) > 1:
        raise BadMember(f"more than one top-level folder has a {SPEC_FILE}: {', '.join(map(shown, sorted(specs)))}")
    spec = min(specs, key=lambda name: SPEC_FILES.index(name.rpartition("/")[2]))
    if members.kinds[spec] is not Kind.FILE:
        raise BadMember(f"{spec.rpartition('/')[2]} must be an ordinary file", member=spec)
    return spec
