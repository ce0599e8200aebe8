"""Folders of environments that belong to the tests; nothing is fetched from anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from wheelhouse import write_package

from fedpkg.environments import make
from fedpkg.environments.choose import choose_python
from fedpkg.environments.interpreter import find_uv


@pytest.fixture(scope="session")
def shared_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where environments are that several tests use."""
    return tmp_path_factory.mktemp("Umgebungen für alle")


@pytest.fixture(scope="session")
def uv_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uv cache")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, uv_cache: Path) -> None:
    """As a person without a network would set it."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    for name in ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(uv_cache / "no configuration"))
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(uv_cache))
    for name in ("UV_FIND_LINKS", "UV_INDEX", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of environments."""
    folder = tmp_path / "Umgebungen und mehr ü"
    monkeypatch.setenv("FEDPKG_ENVIRONMENTS", str(folder))
    return folder


@pytest.fixture
def in_shared_root(shared_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDPKG_ENVIRONMENTS", str(shared_root))
    return shared_root


@pytest.fixture(params=["uv", "pip"])
def maker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the programs that make environments."""
    if request.param == "uv" and find_uv() is None:
        pytest.skip("uv is not installed")
    if request.param == "pip":
        monkeypatch.setattr(make, "find_uv", lambda: None)
    return str(request.param)


@pytest.fixture
def choose() -> Callable[..., Path | None]:
    """The interpreter for a package's folder, as a run chooses it."""

    def choose(folder: Path, choice: Any = "auto", **fields: Any) -> Path | None:
        named = "python_env.yaml" if (folder / "python_env.yaml").exists() else None
        return choose_python(folder, choice, package="probe", **{"python_env": named, **fields})

    return choose


@pytest.fixture
def package(tmp_path: Path) -> Iterator[Path]:
    """A package whose wheel has the number 1."""
    folder = tmp_path / "ein Paket ä"
    yield write_package(folder)
