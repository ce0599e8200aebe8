"""Converts the data of the waist to JSON and back. Equal values give equal bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TypeVar

import msgspec

from fedpkg.errors import WaistError

T = TypeVar("T", bound=msgspec.Struct)
MOST_LEVELS = 500  # of lists and objects in each other: Python's own limit is raised where trees of combiners are deep


def to_json(value: msgspec.Struct) -> bytes:
    """A value as one line of JSON. Numbers that are not finite are kept, as in Python's json.

    Raises:
        WaistError: If it contains values that are not JSON, or is nested too deeply.
    """
    try:
        plain = msgspec.to_builtins(value)
        text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        _check_levels(plain, text.count("[") + text.count("{"))
    except (TypeError, ValueError, RecursionError) as error:
        raise WaistError(f"this {type(value).__name__} cannot be written as JSON: {error}") from error
    return text.encode(errors="surrogatepass")  # an environment may contain bytes that are not text


def from_json(data: bytes | str, kind: type[T]) -> T:
    """The value of JSON written by `to_json`.

    Raises:
        WaistError: If it is not of that kind, or has an unknown field; the message has the place.
    """
    try:
        text = data if isinstance(data, str) else data.decode(json.detect_encoding(data), "surrogatepass")
        plain = json.loads(text)
        _check_levels(plain, text.count("[") + text.count("{"))
        return msgspec.convert(plain, kind)
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise WaistError(f"not a valid {kind.__name__}: {error}") from error


def _check_levels(value: object, most: int) -> None:
    """Raises ValueError: it is nested too deeply. ``most``: no more levels are possible."""
    if most <= MOST_LEVELS:
        return
    level = [value]
    for _ in range(MOST_LEVELS + 1):
        level = [part for one in level for part in _parts(one)]
        if not level:
            return
    raise ValueError(f"nested in more than {MOST_LEVELS} levels")


def _parts(value: object) -> Iterable[object]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
