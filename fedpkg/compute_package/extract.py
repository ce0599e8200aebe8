"""Reads an archive's members: counts and checks them, and writes them or compares them with existing files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, NamedTuple

from fedpkg.compute_package.app import APP_FILE, is_app
from fedpkg.compute_package.members import (
    MAX_DEPTH,
    BadMember,
    Kind,
    Members,
    is_inside,
    link_target,
    normal_name,
    shown,
    too_many_bytes,
    too_many_members,
)
from fedpkg.compute_package.spec import read_spec
from fedpkg.compute_package.tarstream import TarMember, TarStream
from fedpkg.fedn.names import SPEC_FILE, SPEC_FILES

# Headers and padding of a member, in addition to its bytes; no normal tar stream needs more.
_OVERHEAD_BYTES = 4 << 10
_SLACK_BYTES = 1 << 20
# An archive may always unpack to this size; above it, to MAX_RATIO times its own size. gzip can reach a ratio of 1032,
# bzip2 far more.
_FREE_BYTES = 256 << 20
MAX_RATIO = 100


def stream_bytes(max_bytes: int, max_members: int) -> int:
    """The largest size of a tar stream with these members."""
    return max_bytes + max_members * _OVERHEAD_BYTES + _SLACK_BYTES


class Member(NamedTuple):
    name: str
    kind: Kind
    size_bytes: int  # of a file
    content: str  # a file's sha256, a link's target


@dataclass(frozen=True)
class Contents:
    """The contents of a cache entry."""

    folder: str  # the folder of fedn.yaml inside the archive; "" is the root
    members: list[Member]

    @cached_property
    def manifest(self) -> bytes:
        return json.dumps({"folder": self.folder, "members": self.members}, ensure_ascii=False).encode()

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.manifest).hexdigest()


@dataclass(frozen=True)
class Archive:
    """An open archive, and how much of it may be unpacked."""

    file: BinaryIO
    label: str
    size_bytes: int
    digest: str
    max_bytes: int
    max_members: int

    @property
    def stream_limit(self) -> tuple[int, BadMember]:
        """The largest size of its tar stream, and the error for a larger one."""
        by_limits = stream_bytes(self.max_bytes, self.max_members)
        by_ratio = _FREE_BYTES + MAX_RATIO * self.size_bytes
        if by_limits <= by_ratio:
            return by_limits, too_many_bytes(self.max_bytes)
        hint = "if you trust it, pack it without compression: gunzip it, or tar -cf package.tar client"
        return by_ratio, BadMember(f"it unpacks to more than {MAX_RATIO} times its size", hint=hint)


def digest_of(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


class _Digesting:
    """A file whose digest is computed while it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def read(self, size_bytes: int) -> bytes:
        data = self._file.read(size_bytes)
        self.sha256.update(data)
        return data


class Writer:
    """Writes an archive's members below ``root``, which is empty."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, name: str) -> None:
        make_folder(self.root / name)

    def file(self, name: str, blocks: Iterable[memoryview], *, executable: bool) -> str:
        """Write a file's bytes; returns their sha256."""
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


class Differs(Exception):
    """An existing file differs from the archive's."""


class Comparer:
    """Replaces a writer: compares members with the files below ``root``, and changes nothing."""

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
            self._expect(modes[0] == modes[1] and digest_of(file) == digest_of(other))

    def link(self, name: str, target: str) -> None:
        self._expect(os.readlink(self.root / name) == target)

    def _open(self, name: str) -> BinaryIO:
        fd = os.open(self.root / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        file = open(fd, "rb")  # noqa: SIM115 - closed by the caller
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            file.close()
            raise Differs
        return file

    @staticmethod
    def _expect(holds: bool) -> None:
        if not holds:
            raise Differs


def check_count(archive: Archive) -> None:
    """Raise BadMember if there are too many members, before the first one is written."""
    archive.file.seek(0)
    stream = TarStream(archive.file, max_stream_bytes=archive.stream_limit[0], too_big=archive.stream_limit[1])
    known, too_many = {""}, None
    with suppress(BadMember):  # other problems are reported when the archive is extracted
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


def extract(archive: Archive, sink: Writer | Comparer) -> Contents:
    """Pass an archive's members to a sink. Links come last, so that no path before leads through one."""
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
        if not name:  # "./", the folder in which tar was run
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
            unpacked_bytes += size_bytes  # a file with fewer bytes than its header states is refused as truncated
            if unpacked_bytes > archive.max_bytes:
                raise too_many_bytes(archive.max_bytes, member=name)
            if source is not None:
                sink.copy(name, source)
                digests[name] = digests[source]
            else:
                digests[name] = sink.file(name, stream.data(), executable=member.executable)
            sizes[name] = size_bytes
    if file.sha256.hexdigest() != archive.digest:
        raise BadMember(
            "the archive changed while it was read", hint="wait until it is completely written, then try again"
        )
    spec = _spec_member(members)
    folder = spec.rpartition("/")[0]
    _link(links, folder, sink)
    if spec.endswith(APP_FILE) and not is_app(sink.root / folder):
        raise BadMember(f"it has no {SPEC_FILE}, and its {APP_FILE} describes no message app")
    read_spec(sink.root / spec, where=f"{archive.label}: {spec}")
    content = {**digests, **links}
    return Contents(
        folder,
        [Member(name, kind, sizes.get(name, 0), content.get(name, "")) for name, kind in members.kinds.items()],
    )


def _hard_linked(member: TarMember, name: str, before: Mapping[str, int]) -> str | None:
    """The file that a member is a hard link to; None if it is an ordinary file."""
    if member.type != tarfile.LNKTYPE:
        return None
    source = normal_name(member.target, member=name)
    if source == name or source not in before:
        raise BadMember(f"it is a hard link to {shown(member.target)}, which is not a file before it", member=name)
    return source


def _link(links: Mapping[str, str], folder: str, sink: Writer | Comparer) -> None:
    for name, target in links.items():
        resolved = link_target(name, target)
        if is_inside(name, folder) and not is_inside(resolved, folder):
            raise BadMember(f"its target {shown(target)} is outside the package", member=name)
        sink.link(name, target)


def _kind(member: TarMember) -> Kind:
    if member.type == tarfile.DIRTYPE:
        return Kind.FOLDER
    return Kind.LINK if member.type == tarfile.SYMTYPE else Kind.FILE


def make_folder(path: Path) -> None:
    path.mkdir()
    path.chmod(0o755)  # independent of the umask


def _mode(*, executable: bool) -> int:
    """The mode of a file in the cache: other bits of the archive, such as set-uid, are dropped."""
    return 0o555 if executable else 0o444


def _spec_member(members: Members) -> str:
    """The package's fedn.yaml (or scaleout.yaml): at the archive's root, or in the one top-level folder that has it.

    Without one, the pyproject.toml, which must describe a message app.
    """
    shallow = _shallow(members, SPEC_FILES) or _shallow(members, (APP_FILE,))
    specs = [name for name in shallow if "/" not in name] or shallow  # a deeper one is an ordinary file of this package
    if not specs:
        deeper = next((name for name in members.kinds if name.endswith(tuple(f"/{file}" for file in SPEC_FILES))), None)
        where = f" ({shown(deeper)} is too deep)" if deeper else ""
        raise BadMember(f"it has no {SPEC_FILE} at its root or in a top-level folder{where}")
    if len({name.rpartition("/")[0] for name in specs}) > 1:
        raise BadMember(f"more than one top-level folder has a {SPEC_FILE}: {', '.join(map(shown, sorted(specs)))}")
    spec = min(specs, key=lambda name: (*SPEC_FILES, APP_FILE).index(name.rpartition("/")[2]))
    if members.kinds[spec] is not Kind.FILE:
        raise BadMember(f"{spec.rpartition('/')[2]} must be an ordinary file", member=spec)
    return spec


def _shallow(members: Members, names: Sequence[str]) -> list[str]:
    return [name for name in members.kinds if name.rpartition("/")[2] in names and name.count("/") <= 1]
