"""Every hostile package is refused with one clear error; nothing is written elsewhere, and nothing half-done stays."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile import (
    CORPUS,
    MAX_BYTES,
    MAX_MEMBERS,
    PACKAGE,
    Case,
    entry,
    extended,
    header,
    raw,
    records,
    shown,
    tar_bytes,
)

from fedpkg.cli.main import run_command
from fedpkg.compute_package import extract
from fedpkg.compute_package.unpack import open_package
from fedpkg.config import LimitsConfig
from fedpkg.errors import ArchiveError, PackageError, SpecError

BY_DEFAULT = [case for case in CORPUS if not case.tight]  # refused whatever the limits
SAMPLE = [case for case in BY_DEFAULT if case.name in (
    "name: traversal", "link: absolute", "special: fifo", "damage: gzip without its end", "yaml: tag of Python"
)]  # fmt: skip


def snapshot(folder: Path) -> dict[str, object]:
    """All that is below a folder, with its bytes."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where an archive lies, with neighbours that it would like to write to; the cache is two folders further down."""
    place = tmp_path / "ein Ort"
    for name in ("x", "client-evil/x", "home/cache-evil/x", "home/x", "secret"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("as it was")
    return place


def write(case: Case, place: Path) -> Path:
    path = place / f"Paket ü{case.suffix}"
    path.write_bytes(case.make())
    return path


def test_corpus_is_large_and_its_names_are_unique() -> None:
    assert len({case.name for case in CORPUS}) == len(CORPUS) >= 180


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.name)
def test_hostile_package_is_refused_with_one_clear_error_and_leaves_nothing(case: Case, place: Path) -> None:
    archive, cache = write(case, place), place / "home" / "cache"
    before = snapshot(place)
    with pytest.raises((ArchiveError, SpecError)) as caught:
        open_package(archive, cache, limits=LimitsConfig(package_bytes=MAX_BYTES, package_members=MAX_MEMBERS))
    error = caught.value
    assert error.message == f"{archive}: {case.said}"
    assert "\n" not in error.message and len(error.message) < 600
    if isinstance(error, ArchiveError):
        assert error.hint
        member = error.fields["member"]
        assert (None if member is None else shown(member)) == case.member
        assert error.message.endswith(error.fields["rule"])
    after = snapshot(place)
    assert after.keys() - before.keys() <= {"home/cache", "home/cache/.lock"}
    assert before.items() <= after.items()


def test_whole_corpus_takes_little_memory_and_no_descriptors(tmp_path: Path) -> None:
    for number, case in enumerate(CORPUS):
        (tmp_path / f"{number}{case.suffix}").write_bytes(case.make())
    script = """
import os, resource, sys, pathlib
from fedpkg.compute_package.unpack import open_package
from fedpkg.config import LimitsConfig
from fedpkg.errors import PackageError
place = pathlib.Path(sys.argv[1])
def used():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, len(os.listdir("/proc/self/fd"))
before, refused = used(), 0
for archive in sorted(place.iterdir()):
    try:
        open_package(archive, place / "cache", LimitsConfig(package_bytes=1 << 20, package_members=1000))
    except PackageError:
        refused += 1
print(refused, *(now - then for now, then in zip(used(), before)))
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    refused, more_kib, descriptors = map(int, done.stdout.split())
    assert (refused, descriptors) == (len(CORPUS), 0)
    assert more_kib < 100 << 10  # xz may take 65 MiB


# ---- what has no archive to be a case of


def test_ratio_is_bounded_where_the_limit_on_bytes_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "_FREE_BYTES", 1 << 20)
    case = next(case for case in CORPUS if case.name == "bomb: ratio of gzip")
    archive = write(case, tmp_path)
    with pytest.raises(ArchiveError, match="it unpacks to more than 100 times its size") as caught:
        open_package(archive, tmp_path / "cache", limits=LimitsConfig(package_bytes=1 << 32, package_members=1000))
    assert caught.value.hint == "if you trust it, pack it without compression: gunzip it, or tar -cf package.tar client"
    plain = tmp_path / "plain.tar"
    plain.write_bytes(tar_bytes([PACKAGE, entry("client/zeros", bytes(4 << 20))]))
    assert (
        open_package(plain, tmp_path / "cache", limits=LimitsConfig(package_bytes=1 << 32, package_members=1000)).top
        == "client"
    )


def test_terabyte_of_nothing_is_refused_before_it_is_read(tmp_path: Path) -> None:
    archive = tmp_path / "p.tar.gz"
    archive.touch()
    os.truncate(archive, 1 << 40)
    with pytest.raises(ArchiveError, match="unpacks to more than 4294967296 bytes"):
        open_package(archive, tmp_path / "cache")


def test_folder_with_too_much_in_it_is_refused_before_it_is_packed(tmp_path: Path) -> None:
    folder = tmp_path / "client"
    folder.mkdir()
    (folder / "fedn.yaml").write_bytes(b"entry_points: {train: {command: a}}")
    (folder / "big").touch()
    os.truncate(folder / "big", 1 << 40)
    with pytest.raises(PackageError, match="'client/big' cannot go into a package: the package unpacks to more than"):
        open_package(folder, tmp_path / "cache")
    (folder / "big").unlink()
    for number in range(9):
        (folder / str(number)).touch()
    with pytest.raises(PackageError, match="cannot go into a package: the package has more than 5 files and folders"):
        open_package(folder, tmp_path / "cache", limits=LimitsConfig(package_bytes=4 << 30, package_members=5))


def test_archive_that_is_exchanged_after_it_was_digested_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "p.tar"
    archive.write_bytes(raw())
    other = tmp_path / "other.tar"
    other.write_bytes(tar_bytes([entry("client/fedn.yaml", PACKAGE[1].replace(b"train.py", b"other.py"))]))
    status = archive.stat()

    def exchange(_digest: str) -> None:  # in place, with the time that it had
        data = other.read_bytes()
        archive.write_bytes(data[: status.st_size].ljust(status.st_size, b"\0"))
        os.utime(archive, ns=(status.st_atime_ns, status.st_mtime_ns))

    with pytest.raises(ArchiveError, match="the archive changed while it was read"):
        open_package(
            archive, tmp_path / "cache", limits=LimitsConfig(package_bytes=MAX_BYTES, package_members=9), admit=exchange
        )
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_harmless_oddities_are_put_right(tmp_path: Path) -> None:
    archive = tmp_path / "p.tar"
    capability = extended(b"x", records(**{"SCHILY.xattr.security.capability": b"\1\0\0\2", "uname": "root"}))
    members = [
        capability + header("client/capable", mode=0o755),
        header("client/setuid", mode=0o6777, uid=0, gid=0),
        header("client/sticky/", type=b"5", mode=0o1777),
        header("client/unreadable", mode=0o000),
        header("client/from the future", mtime=8**11 - 1),
    ]
    archive.write_bytes(raw(*members))
    package = open_package(
        archive, tmp_path / "cache", limits=LimitsConfig(package_bytes=MAX_BYTES, package_members=99)
    )
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in package.folder.iterdir()}
    assert modes == {
        "fedn.yaml": 0o444,
        "capable": 0o555,
        "setuid": 0o555,
        "sticky": 0o755,
        "unreadable": 0o444,
        "from the future": 0o444,
    }
    assert {path.stat().st_uid for path in package.folder.iterdir()} == {os.geteuid()}
    assert os.listxattr(package.folder / "capable") == []
    assert (package.folder / "from the future").stat().st_mtime < time.time() + 60


# ---- from the command line


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder; temporary ones lie in it, and the logger is put back as it was."""
    (place / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(place / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.delenv("FEDPKG_HOME", raising=False)
    monkeypatch.chdir(place)
    logger = logging.getLogger("fedpkg")
    before = logger.handlers[:], logger.level, logger.propagate
    yield place
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


def fedpkg(*words: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command([str(word) for word in words])
    return code, out.getvalue(), err.getvalue()


def test_inspect_answers_each_with_one_error_and_exit_code_4(here: Path) -> None:
    for case in BY_DEFAULT:
        archive = write(case, here)
        before = snapshot(here)
        code, out, err = fedpkg("package", "inspect", archive)
        assert (case.name, code, out) == (case.name, 4, "")
        first, *rest = err.splitlines()
        # The names of limits are other numbers here; all else is the same.
        assert first == f"error: {archive}: {case.said.replace(str(MAX_BYTES), str(4 << 30))}"
        assert len(rest) <= 1 and all(line.startswith("    try      ") for line in rest)
        assert first.isprintable()
        assert snapshot(here) == before
        archive.unlink()


@pytest.mark.parametrize("case", SAMPLE, ids=lambda case: case.name)
def test_run_and_call_refuse_before_anything_is_recorded(case: Case, here: Path) -> None:
    archive = write(case, here)
    run_yaml = here / "run.yaml"
    run_yaml.write_text(json.dumps({"package": str(archive), "rounds": 1, "clients": {"count": 1}}))
    code, _, err = fedpkg("run", run_yaml, "--home", here / "h")
    assert (code, err.splitlines()[0]) == (4, f"error: {archive}: {case.said}")
    assert list((here / "h" / "sessions").iterdir()) == []
    assert [path.name for path in (here / "h" / "packages").iterdir()] == [".lock"]
    assert json.loads(fedpkg("session", "list", "--home", here / "h", "--json")[1]) == []
    code, _, err = fedpkg("package", "call", archive, "build")
    assert (code, err.splitlines()[0]) == (4, f"error: {archive}: {case.said}")
    assert list((here / "tmp").iterdir()) == []
