"""Environments that are there: what the command line shows of them, and which it removes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from wheelhouse import write_package

from fedpkg.cli.main import run_command
from fedpkg.environments.make import size_bytes

Choose = Callable[..., "Path | None"]
DAY_S = 86400


def fedpkg(*words: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert run_command(["environment", *words]) == 0
    return out.getvalue()


def listed() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(fedpkg("list", "--json"))
    return found


@pytest.fixture
def two(root: Path, tmp_path: Path, choose: Choose) -> list[Path]:
    """Two environments, the first of which was last used 40 days ago."""
    pythons = [choose(write_package(tmp_path / str(number), number=number)) for number in (1, 2)]
    folders = [python.parent.parent for python in pythons if python is not None]
    ago = time.time() - 40 * DAY_S
    os.utime(folders[0] / "fedpkg-used", (ago, ago))
    return folders


def test_list_shows_sizes_and_last_use(two: list[Path], tmp_path: Path, choose: Choose) -> None:
    head, *rows = fedpkg("list").splitlines()
    assert head.split("  ")[0] == "environment" and "size" in head and "last used" in head
    assert time.strftime("%Y-%m-%d", time.localtime(time.time() - 40 * DAY_S)) in rows[0]
    assert "B  " in rows[0], "a size with its unit"
    assert [one["size_bytes"] for one in listed()] == [size_bytes(folder) for folder in two]
    assert time.time() - listed()[0]["used_at"] > 39 * DAY_S
    choose(tmp_path / "1")
    assert time.time() - listed()[0]["used_at"] < DAY_S, "a run that finds it made uses it"


def test_one_of_a_version_without_last_use_was_used_when_it_was_made(two: list[Path]) -> None:
    (two[0] / "fedpkg-used").unlink()
    assert listed()[0]["used_at"] == listed()[0]["created_at"]


def test_prune_removes_what_nobody_used_for_some_time(two: list[Path], root: Path) -> None:
    left = root / ("0" * 32)  # of a making that was cut off
    (left / "lib").mkdir(parents=True)
    assert fedpkg("prune", "--days", "50").startswith("1 environments, ")
    assert not left.exists() and all(folder.exists() for folder in two)
    pruned = fedpkg("prune")
    assert pruned.startswith("1 environments, ") and pruned.endswith(" were removed\n")
    assert [path.name for path in root.iterdir()] == [two[1].name]
    assert json.loads(fedpkg("prune", "--json")) == []


@pytest.fixture(params=["by its program", "by its variables"])
def running(request: pytest.FixtureRequest, two: list[Path]) -> Iterator[None]:
    """A program that runs in the first environment."""
    by_program = request.param == "by its program"
    process = subprocess.Popen(
        [two[0] / "bin" / "python" if by_program else sys.executable, "-c", "print(flush=True); input()"],
        env=dict(os.environ) if by_program else {**os.environ, "VIRTUAL_ENV": str(two[0])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.kill()


@pytest.mark.usefixtures("running")
def test_prune_leaves_an_environment_in_which_a_program_runs(two: list[Path]) -> None:
    assert fedpkg("prune") == "0 environments, 0 B, were removed\n"
    assert two[0].exists()
