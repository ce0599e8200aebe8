"""Executors with real processes, in folders with spaces and unicode in their names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from workbench import Bench, inline, make_bench, marked, unpacked, write_model

from fedpkg.dispatch.site import PackageOnDisk


@pytest.fixture(scope="module", params=["process", "forkserver", "resident"])
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """One executor for all tests of a module."""
    folder = tmp_path_factory.mktemp("Tische und Bänke")
    bench = make_bench(request.param, folder, inline(folder, "import atexit, threading, subprocess, multiprocessing"))
    yield bench
    bench.executor.close()
    assert marked(bench.mark) == []


@pytest.fixture(params=["process", "forkserver", "resident"])
def open_bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Makes executors that a test may hurt."""
    benches = []

    def make(package: PackageOnDisk | None = None, **options: Any) -> Bench:
        benches.append(make_bench(request.param, tmp_path, package or inline(tmp_path, "tell()"), **options))
        return benches[-1]

    yield make
    for bench in benches:
        bench.executor.close()
        assert marked(bench.mark) == []


@pytest.fixture(scope="module")
def misbehave(tmp_path_factory: pytest.TempPathFactory) -> PackageOnDisk:
    return unpacked("misbehave", tmp_path_factory.mktemp("Ein Paket"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("Modelle") / "global model.npz")
