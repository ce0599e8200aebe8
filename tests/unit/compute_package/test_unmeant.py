"""What nobody means to ship stays out of a package, and the build says so; a person may leave out more."""

from __future__ import annotations

import logging
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from fedpkg.compute_package import ignore
from fedpkg.compute_package.build import BuiltPackage, build_package
from fedpkg.compute_package.ignore import Selection
from fedpkg.compute_package.unpack import open_package
from fedpkg.errors import PackageError

MINE = ["entrypoint.py", "fedn.yaml", "sub/größe.txt"]


def build(folder: Path, **selection: object) -> BuiltPackage:
    return build_package(folder, folder.parent / "p.tar.gz", Selection(**selection))  # type: ignore[arg-type]


def inside(built: BuiltPackage) -> list[str]:
    return [file.name.partition("/")[2] for file in built.files]


def put(path: Path, text: str = "x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_environments_repositories_and_caches_stay_out_and_are_named(client: Path) -> None:
    digest = build(client).digest
    venv.create(client / "my env", symlinks=True)  # its links lead out of the package
    put(client / "sub" / "conda" / "conda-meta" / "history")
    never = [".git", ".hg", ".ipynb_checkpoints", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".venv", "sub/.git"]
    for name in never:
        put(client / name / "deep" / "file")
    put(client / "__pycache__" / "a.pyc")
    built = build(client)
    assert inside(built) == MINE
    assert built.digest == digest, "the digest is of what went in"
    why = dict(built.left_out)
    assert why.pop("my env") == why.pop("sub/conda") == "a virtual environment"
    assert set(why.values()) == {"never packed"}
    assert sorted(why) == never


def test_a_run_of_a_folder_leaves_them_out_too_and_says_so(
    client: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    venv.create(client / "env", symlinks=True)
    assert open_package(client, tmp_path / "cache").digest == build(client).digest
    assert "package.left_out" in caplog.text and "about=env (a virtual environment)" in caplog.text


@pytest.fixture
def checkpoints(client: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of over 100 MB, as far as this test goes."""
    monkeypatch.setattr(ignore, "_CHECKPOINT_BYTES", 3)
    for name in ("sub/best.pt", "last.ckpt", "data.csv"):
        put(client / name, "1234")
    put(client / "small.pt", "123")
    return client


def test_a_big_checkpoint_is_asked_about(checkpoints: Path) -> None:
    asked = []
    built = build(
        checkpoints, ask=lambda name, size_bytes: not asked.append((name, size_bytes)) and name == "last.ckpt"
    )
    assert asked == [("last.ckpt", 4), ("sub/best.pt", 4)]
    assert inside(built) == sorted([*MINE, "data.csv", "last.ckpt", "small.pt"])
    assert built.left_out == (("sub/best.pt", "a checkpoint of 0 MB; to pack it, use --include 'sub/best.pt'"),)


def test_a_big_checkpoint_that_is_named_is_packed_without_asking(checkpoints: Path) -> None:
    assert [one.name for one in build(checkpoints, include=("*.pt",)).left_out] == ["last.ckpt"]


def test_a_run_of_a_folder_has_its_checkpoints(checkpoints: Path, tmp_path: Path) -> None:
    package = open_package(checkpoints, tmp_path / "cache")
    assert {"client/sub/best.pt", "client/last.ckpt"} <= {file.name for file in package.files}


def test_what_is_excluded_stays_out(client: Path) -> None:
    put(client / "notes" / "a.md")
    put(client / "b.csv")
    assert inside(build(client, exclude=("notes/", "*.csv"))) == MINE
    with pytest.raises(PackageError, match=r"the pattern '\*.yaml' \(--exclude\) excludes it"):
        build(client, exclude=("*.yaml",))


@pytest.fixture
def git_ignores(client: Path) -> Path:
    put(client / "data.csv")
    put(client / "sub" / "data.csv")
    put(client / "sub" / "keep.log")
    put(client / "sub" / "drop.log")
    put(client / "out" / "model.npz")
    put(client / "[x].tmp")
    put(client / ".gitignore", "/data.csv\n*.log\n!keep.log\nout/\n*.tmp\n")
    return client


@pytest.mark.parametrize("in_repository", [False, True])
def test_gitignore_counts_on_request_as_git_reads_it(git_ignores: Path, in_repository: bool) -> None:
    expected = [".gitignore", *MINE, "sub/data.csv", "sub/keep.log"]
    if in_repository:
        subprocess.run(["git", "init", "-q", git_ignores.parent], check=True)
        put(git_ignores.parent / ".gitignore", "*.bak\n")
        put(git_ignores / "sub" / "a.bak")
    else:
        assert "data.csv" in inside(build(git_ignores)), "not unless it is asked for"
    assert inside(build(git_ignores, gitignore=True)) == sorted(expected)


def test_a_repositorys_monitor_is_not_run(git_ignores: Path) -> None:
    subprocess.run(["git", "init", "-q", git_ignores], check=True)
    monitor = git_ignores.parent / "monitor"
    put(monitor, f"#!/bin/sh\ntouch '{git_ignores.parent}/ran'\n")
    monitor.chmod(0o755)
    subprocess.run(["git", "-C", git_ignores, "config", "core.fsmonitor", str(monitor)], check=True)
    build(git_ignores, gitignore=True)
    assert not (git_ignores.parent / "ran").exists()


def test_without_git_gitignore_is_refused(git_ignores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    with pytest.raises(PackageError, match="git cannot be run: No such file or directory") as caught:
        build(git_ignores, gitignore=True)
    assert caught.value.hint == "install git, or list patterns in .fedpkgignore"
