"""The error of `fedpkg.client`, which cannot import those of fedpkg."""

from __future__ import annotations


class ClientError(Exception):
    """An error in `fedpkg.client`; ``hint`` is what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message + ("\n  hint  " + self.hint if self.hint else "")
