"""Answers as JSON: numbers that are not finite are null, and every text that clients can write has a form."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

_PIECE = 64 << 10  # bytes of a long list that are sent at once


def encode(answer: object) -> bytes:
    """An answer as JSON."""
    try:
        return msgspec.json.encode(answer)
    except (UnicodeEncodeError, OverflowError, RecursionError, msgspec.MsgspecError):  # a lone surrogate, a long number
        return json.dumps(_plain(msgspec.to_builtins(answer))).encode()


def _plain(value: Any) -> Any:
    """JSON has no NaN: null stands for it."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def pieces(items: Iterable[object], form: str) -> Iterator[bytes]:
    """A list as JSON, in pieces: as an array, or as one value on each line."""
    piece = bytearray(b"[" if form == "json" else b"")
    separator = b""
    for item in items:
        if form == "json":
            piece += separator + encode(item)
            separator = b",\n"
        else:
            piece += encode(item) + b"\n"
        if len(piece) >= _PIECE:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece + (b"]" if form == "json" else b""))
