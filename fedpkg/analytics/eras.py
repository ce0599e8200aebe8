"""Inputs and results of all eras: which one an input belongs to, who answers it, and what its results are.

Algorithms of versions 4 and 5 exchange plain JSON objects. Those of versions 1 to 3 write a word before the content
(`json.`, `typed.`), or a pickle (`fedpkg.analytics.serialise`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fedpkg.analytics import calling, serialise
from fedpkg.analytics.current import Call
from fedpkg.analytics.node import Database

OLD = "v3"  # versions 1 to 3; "v4" and "v5" are written as JSON


def is_old(input_: bytes) -> bool:
    """Whether an input was written by an algorithm of versions 1 to 3."""
    return input_.lstrip()[:1] != b"{"


def is_pickle(data: bytes) -> bool:
    """Whether an input, or a result, is a pickle."""
    return is_old(data) and serialise.split(data, what="the data")[0] in ("", "pickle")


def asked_of(input_: bytes) -> calling.Input:
    """The function that an input asks for, under its name in the module, and its arguments. It must be no pickle."""
    if not is_old(input_):
        return calling.input_of(serialise.from_json(input_, what="the input"))
    given = legacy().read_input(input_)
    return replace(calling.input_of(given), method=legacy().function_name(given))


def database_options(input_: bytes, database: Database | None) -> dict[str, Any]:
    """What an input of versions 1 to 3 says about its database, such as the query."""
    if database is None or not is_old(input_):
        return {}
    found: dict[str, Any] = legacy().database_options(legacy().read_input(input_), database.kind)
    return found


def legacy() -> Any:
    """What reads and answers inputs of versions 1 to 3."""
    from fedpkg.analytics.legacy import calling as former  # here: most algorithms are newer

    return former


def write_input(
    era: str,
    method: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    more: Mapping[str, Any],
    is_central: bool,
    allow_pickle: bool,
) -> bytes:
    """The input of a function, as a person who uses the client of that era would send it.

    Args:
        more: Keys that inputs of versions 1 to 3 may have: query, sheet_name, output_format.
    """
    given = {"method": method, "args": list(args), "kwargs": dict(kwargs)}
    what = f"the arguments of {method}"
    if era != OLD:
        return serialise.to_json(given, what=what)
    return serialise.write({**more, "master": is_central, **given}, what=what, allow_pickle=allow_pickle)


def read_result(era: str, data: bytes, *, what: str, allow_pickle: bool) -> Any:
    """The value that a function returned."""
    if era != OLD:
        return serialise.from_json(data, what=what)
    return serialise.read(data, what=what, allow_pickle=allow_pickle)


def answer(module: str, input_: bytes, call: Call, *, allow_pickle: bool = False) -> bytes:
    """Call the function that an input names; its result as bytes, in the form of the same era.

    Raises:
        Exception: whatever the function raises, and what is wrong with the input or the result.
    """
    if is_old(input_):
        result: bytes = legacy().answer(module, input_, call, allow_pickle=allow_pickle)
        return result
    return calling.answer(module, input_, call)
