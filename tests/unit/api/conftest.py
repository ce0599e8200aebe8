"""A home of real runs that only few seconds make, and the read API of a home over HTTP."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiohttp import web
from once import made_once

import fedpkg
from fedpkg.api.http import add_api
from fedpkg.api.opening import Opened, opened
from fedpkg.dashboard.reading import Reader
from fedpkg.stores.home import Home
from fedpkg.stores.opening import open_store
from tests.unit.reporting.written import HOSTILE, write_session

REPO = Path(__file__).resolve().parents[3]
MISBEHAVE = REPO / "tests" / "packages" / "misbehave"
TREE = {"children": [{"name": "north", "clients": ["client-[0-1]"]}, {"name": "south", "clients": ["client-2"]}]}


def _write(folder: Path, **values: Any) -> Path:
    given = {"name": "run", "package": str(MISBEHAVE), "rounds": 3, "clients": {"count": 3}, **values}
    path = folder / "run.yaml"
    path.write_text(json.dumps({"executor": {"workers": 2}, **given}))
    return path


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with these sessions, by name.

    ``nested``: 3 rounds, whose validations have nested values; client-1 fails in round 2. ``tree``: combiners.
    ``swept.0`` … ``swept.3``: a sweep of two keys. ``digits-killed``: written rows whose process is gone, with hostile
    texts; ``digits-former``: as fedpkg 0.1 wrote it.
    """
    return made_once(tmp_path_factory, "ett hem ü", _make_home) / "a home"


def _make_home(folder: Path) -> None:
    root = folder / "a home"
    arguments = {"train": {"plan": json.dumps({"client-1@2": "raise"})}, "validate": {"how": "nested"}}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        fedpkg.run(_write(folder, name="nested", arguments=arguments), root, progress=False)
        fedpkg.run(_write(folder, name="tree", rounds=2, topology=TREE), root, progress=False)
        path = _write(folder, name="swept", rounds=1, validation={"every": 1}, arguments={"train": {"num_examples": 1}})
        fedpkg.sweep(path, {"seed": [1, 2], "arguments.train.num_examples": [5, 7]}, root, progress=False)
    whole = {"round": {"timeout_s": None, "required": 1}, "keep": {"updates": False}, "validation": {"every": 1}}
    write_session(root, "digits-killed", status="running", log=HOSTILE, config={**whole, "helper": None})
    write_session(root, "digits-former", is_former=True, config={**whole, "helper": None})


@pytest.fixture
def at(home: Path) -> Iterator[Opened]:
    with opened(home) as found:
        yield found


class Answered(NamedTuple):
    status: int
    body: bytes
    headers: Any

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@contextmanager
def serving(home: Path) -> Iterator[str]:
    """The address of a server of a home's read API."""
    loop, ready, found = asyncio.new_event_loop(), threading.Event(), []

    async def serve() -> None:
        app, reader = web.Application(), Reader(home)
        add_api(app, reader, home.absolute())
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        found.append((runner, reader, site._server.sockets[0].getsockname()[1]))  # type: ignore[union-attr]
        ready.set()

    thread = threading.Thread(target=lambda: (asyncio.set_event_loop(loop), loop.run_forever()), daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(serve(), loop).result(30)
    runner, reader, port = found[0]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
        reader.close()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


@pytest.fixture(scope="session")
def address(home: Path) -> Iterator[str]:
    with serving(home) as found:
        yield found


Ask = Callable[[str], Answered]


@pytest.fixture(scope="session")
def ask(address: str) -> Ask:
    """Asks the API for a path below /api/v1."""

    def call(path: str) -> Answered:
        try:
            with urllib.request.urlopen(f"{address}/api/v1{path}", timeout=60) as got:
                return Answered(got.status, got.read(), got.headers)
        except urllib.error.HTTPError as error:
            with error:
                return Answered(error.code, error.read(), error.headers)

    return call


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Writes a home whose sessions were never run."""

    def write(**values: Any) -> Path:
        root = tmp_path / "skrivet hem ü"
        write_session(root, **values)
        return root

    return write


def in_store(home: Path, *statements: str) -> None:
    """Change a home's database by hand, as a disk fault does."""
    with open_store(Home.open(home)) as store:
        for statement in statements:
            with store._database.transaction() as transaction:
                transaction.run(statement)
