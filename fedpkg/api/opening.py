"""A home that is open for reading: what every function of the API takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from fedpkg.errors import StoreError
from fedpkg.session.record import DEFAULT_HOME, find_session, open_home, running_sessions
from fedpkg.stores.opening import open_store

if TYPE_CHECKING:
    from fedpkg.stores.base import SessionRow
    from fedpkg.stores.home import Home
    from fedpkg.stores.overview import Overview, Read
    from fedpkg.stores.sql import StateStore


Item = TypeVar("Item")


class Struct(msgspec.Struct, frozen=True, kw_only=True):
    """The base of all answers. Times are seconds since the epoch, and durations are seconds."""


class Page(Struct, Generic[Item], frozen=True, kw_only=True):
    """A part of a list of ``total`` items. ``notes`` name rows that could not be read."""

    total: int
    skip: int
    items: list[Item]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Opened:
    """A home and its store. One `Opened` may be used by several threads, one after another."""

    home: Home
    store: StateStore

    @property
    def overview(self) -> Overview:
        return self.store.overview

    def running(self) -> frozenset[str]:
        """Ids of the sessions that run now."""
        return running_sessions(self.home)

    def session(self, ref: str) -> SessionRow:
        """A session by its id, the beginning of one, or ``latest``. A damaged configuration is empty in its row:
        `without_config` tells it.

        Raises:
            NotFound: there is none.
        """
        try:
            return find_session(self.store, ref)
        except StoreError:
            if ref == "latest":
                raise
            return self.store.get_session_without_config(ref)

    def without_config(self, row: SessionRow) -> tuple[str, ...]:
        """The note about a session whose configuration is damaged."""
        return () if row.config else (f"the database is damaged: the configuration of {row.session_id} cannot be read",)

    def shown_path(self, path: str) -> str:
        """A path for an answer: from the folder of the home if it is below it, else ``…/`` and its last part."""
        above = self.home.root.parent
        if "://" in path or not path.startswith(("/", "~")):
            return path
        if above != above.parent and Path(path).is_relative_to(above):
            return str(Path(path).relative_to(above))
        return f"…/{Path(path).name}"

    def without_paths(self, value: Any) -> Any:
        """A tree of JSON in which texts that are absolute paths are shown as by `shown_path`."""
        if isinstance(value, dict):
            return {key: self.without_paths(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.without_paths(inner) for inner in value]
        return self.shown_path(value) if isinstance(value, str) and _PATH.match(value) else value

    def command(self, words: str) -> str:
        """A command about this home, for the folder above it."""
        name = self.home.root.name
        return f"fedpkg {words}" + ("" if name == DEFAULT_HOME else f" --home {shlex.quote(name)}")

    def notes(self, read: Read) -> tuple[str, ...]:
        """The problems of damaged rows, for an answer."""
        return tuple(self.told(problem) for problem in read.problems)

    def told(self, message: str) -> str:
        """A message without the path of the home."""
        return without_home(message, self.home.root)


def without_home(text: str, home: Path) -> str:
    """A text without the path of the home."""
    return text.replace(f"{home}/", "").replace(str(home), "the home")


_PATH = re.compile(r"(?:/|~/)[^\s/]")


@contextmanager
def opened(home: Path | str | None = None) -> Iterator[Opened]:
    """Open a home for reading; a controller may be writing meanwhile, and nothing is created or changed.

    Raises:
        NotFound: there is no home.
        StoreError: it has no store, or one of another version.
    """
    found = open_home(home, create=False)
    with open_store(found, read_only=True) as store:
        yield Opened(found, store)
