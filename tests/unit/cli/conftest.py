"""Fixtures of the command line's tests."""

import json
import os
from pathlib import Path

import pytest
from cli_support import REPO, fedpkg, write_run_yaml
from zygotes import shared_zygotes

__all__ = ["shared_zygotes"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder; temporary folders, which stay after a failure, lie beside it."""
    folder = tmp_path / "min mapp é"
    folder.mkdir()
    temporary = tmp_path / "tillfälligt och mer"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("FEDPKG_HOME", raising=False)
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """One finished session of two rounds, in which client-1 fails once: its home, what it printed, where it ran."""
    folder = tmp_path_factory.mktemp("färdig körning")
    plan = {"train": {"plan": json.dumps({"client-1@2": "raise"})}}
    home = folder / "a home"
    ended = fedpkg("run", write_run_yaml(folder, arguments=plan), "--home", home)
    assert ended.code == 0, ended.err
    return home, ended, Path.cwd()


@pytest.fixture
def environment(here):
    """For a process of its own: this fedpkg."""
    return {**os.environ, "PYTHONPATH": str(REPO), "COLUMNS": "100"}
