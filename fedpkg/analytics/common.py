"""Small functions that algorithms import: names of loggers, and bytes as text."""

from __future__ import annotations

import base64
import json
from typing import Any, BinaryIO

from fedpkg.analytics.log import debug, error, info, warning

_LONGEST_NAME = 14


def logger_name(special__name__: str) -> str:
    """The name of a module's logger: its last part, shortened."""
    name = special__name__.rpartition(".")[2]
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}.."


def bytes_to_base64s(bytes_: bytes) -> str:
    return base64.b64encode(bytes_).decode()


def base64s_to_bytes(bytes_string: str) -> bytes:
    return base64.b64decode(bytes_string)


def echo(msg: str, level: str = "info") -> None:
    """Print a message."""
    {"debug": debug, "error": error, "warn": warning, "warning": warning}.get(level, info)(msg)


def serialize(data: Any) -> bytes:
    return json.dumps(data).encode()


def deserialize(file: BinaryIO) -> Any:
    return json.load(file)
