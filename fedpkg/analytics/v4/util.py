"""Environment variables of a node's task, which may be encoded, and messages.

Nodes of version 4 write each variable that they set in base32, with "!" for "=". Those of the image are plain, and a
plain value can look like base32 by chance (``DISABLED``). So a value is decoded only if the task's INPUT_FILE shows
that the node encodes, and if the result is text.
"""

from __future__ import annotations

import base64
import os
from typing import Any

from fedpkg.analytics.errors import EnvironmentVariableError, EnvironmentVariableNotFoundError
from fedpkg.analytics.log import debug, error, info, warn
from fedpkg.analytics.words import AlgorithmStepType

__all__ = [
    "check_envvar_value_positive",
    "debug",
    "decoded",
    "error",
    "get_action",
    "get_env_var",
    "info",
    "warn",
]

_WITNESS = "INPUT_FILE"  # set by every node, and an absolute path, which has no form in base32
_FOR_EQUALS = "!"
_TRUE, _FALSE = ("true", "1", "yes", "t"), ("false", "0", "no", "f")


def get_env_var(var_name: str, default: Any = None, as_type: str = "str") -> Any:
    """The value of an environment variable, decoded if the node has encoded it.

    Args:
        default: The value if the variable is not set.
        as_type: "str", "bool" or "int".

    Raises:
        EnvironmentVariableError: The value is not of this type.
    """
    value = decoded(os.environ[var_name]) if var_name in os.environ else default
    if as_type == "str" or not isinstance(value, str):
        return value
    if as_type == "int":
        try:
            return int(value)
        except ValueError:
            raise _wrong(var_name, value, "no whole number") from None
    if as_type == "bool":
        if value not in (*_TRUE, *_FALSE):
            raise _wrong(var_name, value, f"none of {', '.join((*_TRUE, *_FALSE))}")
        return value in _TRUE
    raise ValueError(f"get_env_var: as_type {as_type!r} is none of str, bool, int")


def decoded(value: str) -> str:
    """A value of a variable as the node's configuration has it."""
    witness = _plain(os.environ.get(_WITNESS, ""))
    if witness is None or not os.path.isabs(witness):
        return value
    plain = _plain(value)
    return value if plain is None else plain


def check_envvar_value_positive(envvar_name: str, envvar_value: float) -> None:
    """Refuse a negative value."""
    if envvar_value < 0:
        raise _wrong(envvar_name, envvar_value, "negative")


def get_action() -> Any:
    """The kind of function that is running, of version 5."""
    word = os.environ.get("FUNCTION_ACTION")
    if word is None:
        raise EnvironmentVariableNotFoundError("FUNCTION_ACTION is not set: no function of version 5 is running")
    try:
        return AlgorithmStepType(word)
    except ValueError:
        raise _wrong("FUNCTION_ACTION", word, f"none of {', '.join(AlgorithmStepType.list())}") from None


def _plain(value: str) -> str | None:
    """What an encoded value means; None if it is not encoded."""
    try:
        data = base64.b32decode(value.replace(_FOR_EQUALS, "=").encode("ascii"))
        text = data.decode()
    except ValueError:
        return None
    is_text = all(one.isprintable() or one in "\n\r\t" for one in text)
    return text if is_text and _encoded(text) == value else None


def _encoded(text: str) -> str:
    return base64.b32encode(text.encode()).decode().replace("=", _FOR_EQUALS)


def _wrong(name: str, value: Any, what: str) -> EnvironmentVariableError:
    return EnvironmentVariableError(f"environment variable {name} is {value!r}, which is {what}")
