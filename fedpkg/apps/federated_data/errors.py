"""The error of everything in this package."""

from __future__ import annotations

from fedpkg.errors import DataError


class FederatedDataError(DataError, ValueError):
    """A dataset cannot be found, read or divided, or a call asks for something that it does not have."""
