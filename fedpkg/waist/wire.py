"""The data of the waist as JSON, both ways. Equal values have equal bytes."""

from __future__ import annotations

import json
from typing import TypeVar

import msgspec

from fedpkg.errors import WaistError

T = TypeVar("T", bound=msgspec.Struct)


def to_json(value: msgspec.Struct) -> bytes:
    """A value as one line of JSON. Numbers that are not finite stay what they are, as Python's json has them.

    Raises:
        WaistError: what it holds is no JSON, or is nested too deeply.
    """
    try:
        plain = msgspec.to_builtins(value)
        text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise WaistError(f"this {type(value).__name__} cannot be written as JSON: {error}") from error
    return text.encode(errors="surrogatepass")  # an environment may hold bytes that are no text


def from_json(data: bytes | str, kind: type[T]) -> T:
    """The value that `to_json` wrote.

    Raises:
        WaistError: it is none of that kind, or has a field more; says where.
    """
    try:
        return msgspec.convert(json.loads(data), kind)
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise WaistError(f"this is no {kind.__name__}: {error}") from error
