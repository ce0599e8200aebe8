"""Opening the state store of a home: the one place that decides which database holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedpkg.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from fedpkg.stores.home import Home
    from fedpkg.stores.sql import StateStore


def open_store(home: Home, *, read_only: bool = False) -> StateStore:
    """The home's store, made or brought up to date if needed; use it in a ``with`` block.

    Args:
        read_only: to look while a controller may be writing. Nothing is made or migrated.

    Raises:
        StoreError: it cannot be opened, or with ``read_only``, there is none.
        OtherSchema: a newer fedpkg wrote it; with ``read_only``, also an older one.
    """
    return SqliteStore(home.state_db, read_only=read_only)
