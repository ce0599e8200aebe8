"""Calls of functions that nodes allow only so often, counted in the home."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fedpkg.errors import StoreError
from fedpkg.session import policed
from fedpkg.session.policed import Calls


def test_calls_are_counted_by_collaboration_organization_and_function(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    assert [Calls(path).take("c", "north", "mean", f"s/{n}", maximum=2) for n in range(4)] == [True, True, False, False]
    for other in (("d", "north", "mean"), ("c", "south", "mean"), ("c", "north", "sum")):
        assert Calls(path).take(*other, "s/9", maximum=1)
    assert not Calls(path).take("c", "north", "mean", "s/9", maximum=2)


def test_a_call_that_is_repeated_counts_once(tmp_path: Path) -> None:
    calls = Calls(tmp_path / "calls.sqlite")
    assert all(calls.take("c", "north", "mean", "s/1", maximum=1) for _ in range(3))
    assert not calls.take("c", "north", "mean", "s/2", maximum=1)
    assert calls.take("c", "north", "mean", "s/1", maximum=0), "it was counted while more were allowed"


def test_a_refused_call_does_not_count(tmp_path: Path) -> None:
    calls = Calls(tmp_path / "calls.sqlite")
    assert not calls.take("c", "north", "mean", "s/1", maximum=0)
    assert calls.take("c", "north", "mean", "s/2", maximum=1)


def test_a_file_of_calls_that_another_program_locks_is_an_error_with_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policed, "_WAIT_S", 0.0)
    path = tmp_path / "calls.sqlite"
    calls = Calls(path)
    assert calls.take("c", "north", "mean", "s/1", maximum=2)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match=r"calls\.sqlite: calls of mean cannot be counted: database is locked"):
            calls.take("c", "north", "mean", "s/2", maximum=2)
    assert calls.take("c", "north", "mean", "s/3", maximum=2), "what could not be counted does not count"
    path.write_text("no database" * 100)
    with pytest.raises(StoreError, match="cannot be counted: file is not a database"):
        calls.take("c", "north", "mean", "s/4", maximum=2)
