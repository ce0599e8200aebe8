"""Open the state store of a home: the only place that chooses its database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedpkg.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from fedpkg.stores.home import Home
    from fedpkg.stores.sql import StateStore


def open_store(home: Home, *, read_only: bool = False) -> StateStore:
    """The home's store, created or migrated if needed; use it in a ``with`` block.

    Args:
        read_only: for reading while a controller may be writing. Nothing is created or migrated.

    Raises:
        StoreError: it cannot be opened, or does not exist (with ``read_only``).
        OtherSchema: a newer fedpkg wrote it; with ``read_only``, also an older one.
    """
    return SqliteStore(home.state_db, read_only=read_only)
