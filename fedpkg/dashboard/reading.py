"""The home as the server reads it: one thread, and one open store."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fedpkg.api.changes import database_version, slots_version
from fedpkg.api.opening import opened
from fedpkg.stores.home import Home

if TYPE_CHECKING:
    from fedpkg.api.opening import Opened

Result = TypeVar("Result")


class Reader:
    """Runs what reads the home in a thread of its own, so that the server answers meanwhile."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._thread = ThreadPoolExecutor(1, "reader")
        self._context: AbstractContextManager[Opened] | None = None
        self._at: Opened | None = None
        self._file: tuple[int, int] | None = None  # the database that is open
        self._start = ""  # stamps of two servers, and of two databases, differ

    async def call(self, work: Callable[[Opened], Result]) -> Result:
        """What ``work`` returns. Raises NotFound and StoreError while the home cannot be read."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: work(self._opened()))

    def _opened(self) -> Opened:
        file = self._database_file()
        if self._at is not None and file != self._file:  # the home was removed, or made anew
            self._leave()
        if self._at is None:  # the first time, and as long as the home has no store
            context = opened(self._home)
            self._at = context.__enter__()
            self._context, self._file, self._start = context, file, secrets.token_hex(4)
        return self._at

    def _database_file(self) -> tuple[int, int] | None:
        try:
            found = Home(self._home).state_db.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _leave(self) -> None:
        if (context := self._context) is not None:
            self._at = self._context = None
            context.__exit__(None, None, None)

    def has_store(self) -> bool:
        """Whether a session has ever run in the home."""
        return Home(self._home).state_db.exists()

    async def stamp(self) -> str:
        """A text that changes when a process has written to the store, a slot has a new task, or a session's process
        is gone."""

        def told(at: Opened) -> str:
            return f"{self._start}.{database_version(at)}.{slots_version(at)}.{'.'.join(sorted(at.running()))}"

        return await self.call(told)

    async def next_of(self, pieces: Iterator[bytes]) -> bytes | None:
        """The next piece of what is read bit by bit; None: it has ended."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: next(pieces, None))

    def close(self) -> None:
        self._thread.submit(self._leave)
        self._thread.shutdown()
