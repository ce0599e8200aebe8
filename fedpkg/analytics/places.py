"""Places in a value, such as ``['mean'][0]``, and the errors of values that cannot be written or read."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from typing import Any

from fedpkg.analytics.errors import DeserializationError
from fedpkg.client.errors import ClientError

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHOWN = 8  # keys of a place, before they are shortened


class SerialisationError(ClientError, TypeError):
    """A value cannot be written; the message has what it belongs to, and its place in it."""


class DeserialisationError(ClientError, DeserializationError, ValueError):
    """Bytes cannot be read as a value."""


class NotWritable(TypeError):
    """A value that a form does not know. ``path`` is where it is, from the outside."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.path: list[Any] = []


def place(path: Iterable[Any]) -> str:
    """A place as text: ``['mean'][0]``, or "it" for the whole value."""
    parts = [one if isinstance(one, Part) else f"[{_SHORT.repr(one)}]" for one in path]
    if len(parts) > _SHOWN:
        parts = [*parts[: _SHOWN // 2], "…", *parts[-_SHOWN // 2 :]]
    return "".join(parts).strip() or "it"


class Part(str):
    """A part of a place that is no key, such as `` column 'age'``."""


def name_of_type(value: Any) -> str:
    """The type of a value as one writes it: ``numpy.int64``, ``pandas.DataFrame``, ``set``."""
    kind = type(value)
    module = kind.__module__
    if module == "builtins":
        return kind.__qualname__
    outer = module.partition(".")[0]
    return f"{outer if outer in ('pandas', 'torch', 'numpy') else module}.{kind.__qualname__}"
