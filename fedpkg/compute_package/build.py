"""Builds a package archive from a folder, byte for byte the same on every machine and at any time."""

from __future__ import annotations

import gzip
import io
import logging
import os
import stat
import sys
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

from fedpkg.compute_package.app import APP_FILE, is_app, read_app, spec_with_models
from fedpkg.compute_package.ignore import (
    UNMEANT_FOLDERS,
    USUAL,
    WITH_CHECKPOINTS,
    IgnorePattern,
    IgnoreRules,
    Selection,
    read_ignore,
)
from fedpkg.compute_package.members import (
    BadMember,
    FileEntry,
    Kind,
    Members,
    is_inside,
    link_target,
    normal_name,
    shown,
    too_many_bytes,
)
from fedpkg.compute_package.review import review
from fedpkg.compute_package.spec import parse_spec, read_spec, spec_path
from fedpkg.config import LimitsConfig
from fedpkg.errors import PackageError
from fedpkg.fedn.callbacks import client_scripts, spec_of
from fedpkg.fedn.names import SPEC_FILE, SPEC_FILES
from fedpkg.files import NO_SPACE, atomic_write, sha256_file
from fedpkg.log import event

logger = logging.getLogger("fedpkg.compute_package")

_COMPRESS_LEVEL = 6


@dataclass(frozen=True)
class BuiltPackage:
    """An archive that was written; the names of ``files`` are those inside it (``client/train.py``)."""

    path: Path
    digest: str  # sha256 of the archive
    size_bytes: int
    files: tuple[FileEntry, ...]
    left_out: tuple[LeftOut, ...]
    warnings: tuple[str, ...]


class LeftOut(NamedTuple):
    """A file or folder that was not packed because it is probably unintended: its path, and the reason."""

    name: str
    why: str


@dataclass(frozen=True)
class _Source:
    path: Path
    name: str  # inside the archive
    kind: Kind
    status: os.stat_result
    made: bytes | None = None  # the content, if it is not a file of the folder

    @property
    def size_bytes(self) -> int:
        return self.status.st_size if self.made is None else len(self.made)


def build_package(folder: Path, output: Path, selection: Selection = USUAL, *, made: str | None = None) -> BuiltPackage:
    """Pack ``folder`` into the tar.gz ``output``, with the folder as its single top-level entry.

    Members are sorted and have no owners or times: equal contents give equal bytes (with the same zlib). ``made``: the
    text of the fedn.yaml, if the folder has none.

    Raises:
        SpecError: If the folder's fedn.yaml is wrong.
        PackageError: If it has none, or contains something that cannot be packed.
    """
    made = checked_folder(folder) if made is None else made
    spec = read_spec(spec_path(folder)) if made is None else parse_spec(made, SPEC_FILE)
    if output.is_dir():
        raise PackageError(f"{output} is a folder", hint="give the archive a name: -o package.tar.gz", path=str(output))
    rules = _rules(folder, selection)
    sources, left_out = _collect(folder, rules, made, without=output)  # before the archive's temporary file appears
    with atomic_write(output) as file:
        _write(sources, file)
    files = _files(sources)
    inside = [(one.name.partition("/")[2], one.size_bytes) for one in sources if one.kind is Kind.FILE and not one.made]
    return BuiltPackage(
        path=output,
        digest=sha256_file(output),
        size_bytes=output.stat().st_size,
        files=files,
        left_out=tuple(left_out),
        warnings=(*rules.warnings(), *review(folder, inside, spec)),
    )


def build_from_app(folder: Path, output: Path, selection: Selection = USUAL) -> BuiltPackage:
    """Pack a message app as a package whose `train` and `validate` give its ClientApp model files.

    Raises:
        PackageError: If the folder is no message app, or has a fedn.yaml.
    """
    if not folder.is_dir() or spec_path(folder).name != APP_FILE:
        what = "already has a fedn.yaml" if spec_path(folder).exists() else "is not the folder of a message app"
        hint = f"give a folder whose {APP_FILE} has [tool.flwr.app.components], and that has no {SPEC_FILE}"
        raise PackageError(f"{folder} {what}", hint=hint, path=str(folder))
    return build_package(folder, output, selection, made=spec_with_models(read_app(folder / APP_FILE)))


def write_archive(folder: Path, file: BinaryIO, limits: LimitsConfig, made: str | None = None) -> None:
    """Write the archive of ``build_package`` to ``file``, without its warnings; big checkpoints are packed."""
    made = checked_folder(folder) if made is None else made
    sources, left_out = _collect(folder, _rules(folder), made, max_members=limits.package_members)
    if left_out:
        about = ", ".join(f"{one.name} ({one.why})" for one in left_out)
        event(logger, logging.INFO, "package.left_out", folder=folder, about=about)
    size_bytes = 0
    for source in sources:
        size_bytes += source.size_bytes if source.kind is Kind.FILE else 0
        if size_bytes > limits.package_bytes:
            raise _cannot_go(folder, too_many_bytes(limits.package_bytes, member=source.name))
    _write(sources, file)


def _rules(folder: Path, selection: Selection = WITH_CHECKPOINTS) -> IgnoreRules:
    """What stays out of the package: as its ignore files, and `fab-include` and `fab-exclude` of a message app, say."""
    rules, spec = read_ignore(folder, selection), spec_path(folder)
    if spec.name != APP_FILE:
        return rules
    app = read_app(spec)
    only = _patterns(app.include, "fab-include")
    if only:
        only = (*only, IgnorePattern(APP_FILE, APP_FILE))
    return replace(rules, patterns=(*rules.patterns, *_patterns(app.exclude, "fab-exclude")), only=only)


def _patterns(given: Sequence[str], key: str) -> tuple[IgnorePattern, ...]:
    """Patterns of a message app: ``**/`` stands for any folders, or none."""
    plain = [one.lstrip("/") for one in given]
    variants = dict.fromkeys(one.replace("**/", folders) for one in plain for folders in ("", "*/"))
    return tuple(IgnorePattern(one, f"{APP_FILE}, {key}") for one in variants)


def checked_folder(folder: Path) -> str | None:
    """None if ``folder`` has a fedn.yaml or is a message app; else the text of a fedn.yaml for its program that makes a
    client with callbacks.

    Raises:
        PackageError: If it has neither.
    """
    if not folder.is_dir():
        raise PackageError(
            f"{folder} is not a folder",
            hint=f"give the folder that contains {SPEC_FILE}, or a message app's {APP_FILE}",
            path=str(folder),
        )
    spec = spec_path(folder)
    if spec.is_file() and not spec.is_symlink():
        return None
    if spec.is_symlink() or spec.exists():
        raise PackageError(f"{spec} is not an ordinary file", path=str(spec))
    nested = sorted(path.parent for name in SPEC_FILES for path in folder.glob(f"*/{name}"))
    nested = nested or sorted(path.parent for path in folder.glob(f"*/{APP_FILE}") if is_app(path.parent))
    if nested:
        hint = f"did you mean {nested[0]}?"
    elif (folder / "fedn.yml").exists():
        hint = f"rename fedn.yml to {SPEC_FILE}"
    elif len(scripts := client_scripts(folder)) == 1:
        return spec_of(scripts[0])
    elif scripts:
        listed = ", ".join(scripts)
        hint = f"{listed} make clients; create {spec} with: entry_points: {{client: {{command: python {scripts[0]}}}}}"
    else:
        hint = f"create {spec} with: entry_points: {{train: {{command: python train.py}}}}"
    raise PackageError(f"{folder} has no {SPEC_FILE}", hint=hint, path=str(folder))


def _collect(
    folder: Path, rules: IgnoreRules, made: str | None, *, without: Path | None = None, max_members: int = sys.maxsize
) -> tuple[list[_Source], list[LeftOut]]:
    """All members, sorted by name with parents first; and the files that are left out as unintended."""
    top = os.path.basename(os.path.abspath(folder)) or "package"
    excluded = None if without is None else without.parent.resolve() / without.name
    members = Members(max_members)
    sources: list[_Source] = []
    left_out: list[LeftOut] = []
    try:
        for source in _walk(folder.resolve(), top, "", rules, excluded):
            if isinstance(source, LeftOut):
                left_out.append(source)
                continue
            members.add(normal_name(source.name), source.kind)
            if source.kind is Kind.LINK:
                target = str(source.path.readlink())
                if not is_inside(link_target(source.name, target), top):
                    raise BadMember(f"its target {shown(target)} is outside the package", member=source.name)
            sources.append(source)
        if made is not None:
            path = folder / SPEC_FILE
            sources.append(_Source(path, f"{top}/{SPEC_FILE}", Kind.FILE, folder.stat(), made.encode()))
    except BadMember as error:
        raise _cannot_go(folder, error) from None
    except OSError as error:
        raise PackageError(f"{error.filename or folder}: cannot be read: {error.strerror}", path=str(folder)) from error
    return sources, left_out


def _cannot_go(folder: Path, error: BadMember) -> PackageError:
    member = error.member or os.path.basename(os.path.abspath(folder))
    return PackageError(
        f"{folder}: {shown(member)} cannot go into a package: {error.rule}",
        hint=error.hint or "rename or remove it, or list it in .fedpkgignore",
        path=str(folder),
        member=member,
        rule=error.rule,
    )


def _walk(
    path: Path, name: str, relative: str, rules: IgnoreRules, excluded: Path | None
) -> Iterator[_Source | LeftOut]:
    yield _Source(path, name, Kind.FOLDER, path.stat())
    with os.scandir(path) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        inner = f"{relative}/{entry.name}" if relative else entry.name
        status = entry.stat(follow_symlinks=False)
        is_folder = stat.S_ISDIR(status.st_mode)
        inner_path = path / entry.name
        if inner_path == excluded:
            continue
        pattern = rules.match(inner, is_folder=is_folder)
        if pattern is not None:
            if inner_path == spec_path(path) and not relative:
                raise BadMember(
                    f"the pattern '{pattern.pattern}' ({pattern.origin}) excludes it",
                    member=f"{name}/{inner}",
                    hint=f"a package needs its {inner}: make the pattern more specific",
                )
            if is_folder and pattern.pattern in UNMEANT_FOLDERS:
                yield LeftOut(inner, "never packed")
            continue
        if not is_folder and rules.omits(inner):
            continue
        if unmeant := rules.unmeant(inner_path, inner, is_folder=is_folder, size_bytes=status.st_size):
            yield LeftOut(inner, unmeant)
            continue
        member = f"{name}/{entry.name}"
        if is_folder:
            yield from _walk(inner_path, member, inner, rules, excluded)
        elif stat.S_ISREG(status.st_mode):
            yield _Source(inner_path, member, Kind.FILE, status)
        elif stat.S_ISLNK(status.st_mode):
            yield _Source(inner_path, member, Kind.LINK, status)
        else:
            raise BadMember("it is not a file, folder or link (but a socket, fifo or device)", member=member)


def _write(sources: list[_Source], file: BinaryIO) -> None:
    # The gzip header has no name and no time; the owner fields of a new TarInfo are zero.
    # PAX encodes names as UTF-8 in every locale, and is identical to ustar for short ASCII names.
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=_COMPRESS_LEVEL, fileobj=file, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8") as tar,
    ):
        for source in sources:
            info = tarfile.TarInfo(source.name)
            if source.kind is Kind.FOLDER:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
            elif source.kind is Kind.LINK:
                info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, str(source.path.readlink())
                tar.addfile(info)
            else:
                is_program = source.made is None and source.status.st_mode & stat.S_IXUSR
                info.mode = 0o755 if is_program else 0o644
                info.size = source.size_bytes
                try:
                    with open(source.path, "rb") if source.made is None else io.BytesIO(source.made) as content:
                        tar.addfile(info, content)
                except OSError as error:  # also if the file was truncated after it was listed
                    if error.errno in NO_SPACE:  # no space for the archive
                        raise
                    reason = error.strerror or str(error)
                    raise PackageError(f"{source.path}: cannot be packed: {reason}", path=str(source.path)) from error


def _files(sources: list[_Source]) -> tuple[FileEntry, ...]:
    return tuple(FileEntry(source.name, source.size_bytes) for source in sources if source.kind is Kind.FILE)
