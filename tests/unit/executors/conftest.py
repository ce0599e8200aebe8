"""Every executor there is, as one desk at which tests hand in orders: three local ones, and one across a socket."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.extend(str(Path(__file__).parents[1] / name) for name in ("dispatch", "controller"))

from desk import ANY_CODE, Desk, FarProcess, archive_of

EXECUTORS = ["process", "forkserver", "resident", "socket"]


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of the suite, as it travels."""
    return archive_of(ANY_CODE, tmp_path_factory.mktemp("Paket"))


@pytest.fixture(scope="module", params=EXECUTORS)
def desk(request: pytest.FixtureRequest, archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """One executor for all tests of a module."""
    with Desk(request.param, tmp_path_factory.mktemp("Ein Tisch ü"), archive) as desk:
        yield desk


@pytest.fixture(params=EXECUTORS)
def open_desk(request: pytest.FixtureRequest, archive: Path, tmp_path: Path) -> Iterator[Callable[..., Desk]]:
    """Makes executors that a test may hurt."""
    desks: list[Desk] = []

    def make(**options: Any) -> Desk:
        desks.append(Desk(request.param, tmp_path / f"Tisch {len(desks)}", archive, **options))
        return desks[-1]

    yield make
    for desk in desks:
        desk.__exit__()


@pytest.fixture
def far() -> Iterator[FarProcess]:
    """The far end of an executor, alone."""
    with FarProcess() as far:
        yield far
