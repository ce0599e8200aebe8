"""Nested and flat forms of an app's configuration: ``{"a": {"b": 1}}`` and ``{"a.b": 1}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flatten_dict(nested: Mapping[str, Any] | None) -> dict[str, Any]:
    """The values by dotted keys.

    Raises:
        ValueError: If a value is neither a number, boolean nor text, or a key contains a dot.
    """
    found: dict[str, Any] = {}
    _collect(nested or {}, "", found)
    return found


def unflatten_dict(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The nested form of dotted keys.

    Raises:
        ValueError: If a key is both a value and the beginning of other keys.
    """
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *outer, last = key.split(".")
        place = nested
        for number, part in enumerate(outer, 1):
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise ValueError(f"'{'.'.join(outer[:number])}' is a value, so there cannot be '{key}'")
        if isinstance(place.get(last), dict):
            raise ValueError(f"'{key}' is a value, so there cannot be keys that begin with '{key}.'")
        place[last] = value
    return nested


def _collect(nested: Mapping[str, Any], above: str, found: dict[str, Any]) -> None:
    for key, value in nested.items():
        if not isinstance(key, str) or "." in key:
            raise ValueError(f"the key {key!r}{f' of {above[:-1]!r}' if above else ''} must be text without a dot")
        if isinstance(value, Mapping):
            _collect(value, f"{above}{key}.", found)
        elif isinstance(value, (bool, int, float, str)):
            found[above + key] = value
        else:
            raise ValueError(
                f"'{above}{key}' is a {type(value).__name__}; an app's configuration holds integers, floats, booleans "
                "and strings, and tables of these"
            )
