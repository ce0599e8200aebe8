"""The data of the waist as JSON, both ways. Equal values have equal bytes."""

from __future__ import annotations

import json
from typing import TypeVar

import msgspec

from fedpkg.errors import WaistError

T = TypeVar("T", bound=msgspec.Struct)


def to_json(value: msgspec.Struct) -> bytes:
    """A value as one line of JSON. Numbers that are not finite stay what they are, as Python's json has them."""
    plain = msgspec.to_builtins(value)
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def from_json(data: bytes | str, kind: type[T]) -> T:
    """The value that `to_json` wrote.

    Raises:
        WaistError: it is none of that kind; says where.
    """
    try:
        return msgspec.convert(json.loads(data), kind)
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise WaistError(f"this is no {kind.__name__}: {error}") from error
