"""Converts the data of the waist to JSON and back. Equal values give equal bytes."""

from __future__ import annotations

import json
from typing import TypeVar

import msgspec

from fedpkg.errors import WaistError

T = TypeVar("T", bound=msgspec.Struct)


def to_json(value: msgspec.Struct) -> bytes:
    """A value as one line of JSON. Numbers that are not finite are kept, as in Python's json.

    Raises:
        WaistError: If it contains values that are not JSON, or is nested too deeply.
    """
    try:
        plain = msgspec.to_builtins(value)
        text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise WaistError(f"this {type(value).__name__} cannot be written as JSON: {error}") from error
    return text.encode(errors="surrogatepass")  # an environment may contain bytes that are not text


def from_json(data: bytes | str, kind: type[T]) -> T:
    """The value of JSON written by `to_json`.

    Raises:
        WaistError: If it is not of that kind, or has an unknown field; the message has the place.
    """
    try:
        return msgspec.convert(json.loads(data), kind)
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise WaistError(f"not a valid {kind.__name__}: {error}") from error
