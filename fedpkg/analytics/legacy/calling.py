"""Answers an input of versions 1 to 3: which function it asks for, how it is called, and what is written of its result.

An input is a dictionary: ``method``, ``master`` (any true value: a central function), ``args``, ``kwargs``, and on the
same level ``output_format``, and ``query`` or ``sheet_name`` for the database.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from fedpkg.analytics import calling, serialise
from fedpkg.analytics.current import Call
from fedpkg.analytics.errors import MethodNotFoundError, UserInputError
from fedpkg.analytics.legacy.client import AlgorithmClient, ContainerClient

PREFIX = "RPC_"  # of partial functions
_OPTIONS = {"sql": "query", "sparql": "query", "omop": "query", "excel": "sheet_name"}  # keys of an input, by kind
_WRAPPERS = ("docker", "csv", "auto", "parquet", "excel", "sql", "sparql", "omop", "multidb")
_CALL = re.compile(rf"\b({'|'.join(_WRAPPERS)})_wrapper\s*\(([^)]*)\)")


@dataclass(frozen=True)
class Wrapper:
    """What the command of an image says about its functions.

    Args:
        kind: The type of the database: "csv", "parquet" …; "auto" is that of the node, and "multidb" gives functions a
            dictionary of the labels and URIs instead of a frame.
        has_data: Whether functions get a frame; otherwise None.
        new_client: Whether central functions get an AlgorithmClient, or the former ContainerClient. None: one client
            that has the names of both.
    """

    kind: str = "auto"
    has_data: bool = True
    new_client: bool | None = None


def wrapper_in(command: str) -> Wrapper | None:
    """The wrapper that a Dockerfile, or a command, calls; None if it calls none of versions 1 to 3."""
    found = list(_CALL.finditer(command))
    if not found:
        return None
    kind, arguments = found[-1].groups()
    return Wrapper(
        "csv" if kind == "docker" else kind,
        not re.search(r"load_data\s*=\s*False", arguments),
        bool(re.search(r"use_new_client\s*=\s*True", arguments)),
    )


def wrapper_of(folder: Path) -> Wrapper:
    """The wrapper that the Dockerfile of an algorithm calls; if there is none, that for any database and client."""
    for path in sorted(folder.glob("Dockerfile*")):
        found = wrapper_in(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else None
        if found is not None:
            return found
    return Wrapper()


def is_central(input_: Mapping[str, Any]) -> bool:
    """Whether an input asks for a central function: also if ``master`` is "false", a text that is not empty."""
    return bool(input_.get("master"))


def function_name(input_: Mapping[str, Any]) -> str:
    """The name of the function that an input asks for: partial ones have a prefix, which the input does not have."""
    method = calling.input_of(input_).method
    return method if is_central(input_) else PREFIX + method


def find(module: ModuleType, input_: Mapping[str, Any]) -> Callable[..., Any]:
    """The function that an input asks for.

    Raises:
        MethodNotFoundError: The module has no such function; the message says what it has.
    """
    name = function_name(input_)
    found = getattr(module, name, None)
    if callable(found):
        return found  # type: ignore[no-any-return]
    what = "has no function" if found is None else f"has a {type(found).__name__}, and no function,"
    hint = _hint(module, name, is_master=is_central(input_))
    raise MethodNotFoundError(f"module {module.__name__!r} {what} {name!r}. {hint}")


def _hint(module: ModuleType, name: str, *, is_master: bool) -> str:
    functions = [one for one, value in vars(module).items() if inspect.isfunction(value) and not one.startswith("_")]
    partial = [one[len(PREFIX) :] for one in functions if one.startswith(PREFIX)]
    plain = name[0 if is_master else len(PREFIX) :]
    if plain.startswith(PREFIX) and plain in functions:
        return f"The method of a partial function is given without {PREFIX}: {plain[len(PREFIX) :]!r}."
    if not is_master and plain in functions:
        return f"{plain!r} is a central function: add 'master': True to the input."
    if is_master and plain in partial:
        return f"{plain!r} is a partial function: leave out 'master'."
    known = [one for one in functions if not one.startswith(PREFIX)] if is_master else partial
    if near := difflib.get_close_matches(plain, known, 1):
        return f"Did you mean {near[0]!r}?"
    kind = "central" if is_master else "partial"
    there = ", ".join(sorted(known)) or "none"
    return f"It has these {kind} functions: {there}. Functions of its modules must be imported in its __init__.py."


def read_input(data: bytes, *, allow_pickle: bool = False) -> dict[str, Any]:
    """Read an input.

    Raises:
        DeserialisationError, UserInputError: It cannot be read, or is no dictionary with a method.
    """
    found = serialise.read(data, what="the input", allow_pickle=allow_pickle)
    calling.input_of(found)
    return found  # type: ignore[no-any-return]


def database_options(input_: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """What an input says about its database, as far as databases of a kind have it."""
    name = _OPTIONS.get(kind.lower())
    return {} if name is None or input_.get(name) is None else {name: input_[name]}


def answer(
    module: str, input_: bytes, of: Call, *, wrapper: Wrapper | None = None, allow_pickle: bool = False
) -> bytes:
    """Answer an input, both as bytes.

    Args:
        wrapper: None: the one that the Dockerfile in the working folder calls, if it does.
        allow_pickle: Read pickles, and write values that only these can have.

    Raises:
        UserInputError, MethodNotFoundError: The input is no input, or there is no such function.
        SerialisationError: The result has a type that cannot be sent.
        Exception: Whatever the function raises.
    """
    asked = read_input(input_, allow_pickle=allow_pickle)
    function = find(calling.load(module), asked)
    check(function, asked)
    wrapper = wrapper or wrapper_of(Path.cwd())
    data = data_of(of, wrapper, asked) if wrapper.has_data else None
    result = call(function, asked, data, of, new_client=wrapper.new_client, allow_pickle=allow_pickle)
    form, what = asked.get("output_format"), f"result of {function_name(asked)}"
    return serialise.write(result, form or None, what=what, allow_pickle=allow_pickle)


def check(function: Callable[..., Any], input_: Mapping[str, Any]) -> None:
    """Compare the arguments of an input with the function's signature. WrongArguments: they do not fit."""
    asked = replace(calling.input_of(input_), method=function_name(input_))
    calling.check(function, asked, supplied=2 if is_central(input_) else 1)


def call(
    function: Callable[..., Any],
    input_: Mapping[str, Any],
    data: Any,
    of: Call,
    *,
    new_client: bool | None = None,
    allow_pickle: bool = False,
) -> Any:
    """Call a function as the wrapper does: a central one gets the client first, and both get the data."""
    asked = calling.input_of(input_)
    with calling.running(of, asked.method):
        if not is_central(input_):
            return function(data, *asked.args, **asked.kwargs)
        if of.mock_client is not None:
            client = of.mock_client()
        else:
            client = (ContainerClient if new_client is False else AlgorithmClient).of(
                of.backend, allow_pickle=allow_pickle
            )
        return function(client, data, *asked.args, **asked.kwargs)


def data_of(of: Call, wrapper: Wrapper, input_: Mapping[str, Any]) -> Any:
    """What a function gets as its data: the frame of the database that the task names, or the places of all.

    Raises:
        UserInputError: The task names several databases, where one is wanted.
        DataFrameNotFound: The node has no such database.
    """
    labels = list(of.databases)
    if wrapper.kind == "multidb":
        return {label: of.node.databases[label].uri for label in labels or of.node.databases}
    if len(labels) > 1:
        hint = "name one of them, or let the image call multidb_wrapper, which gives functions the places of all"
        raise UserInputError(f"the function takes one database, but the task names {', '.join(labels)}; {hint}")
    if not labels:
        return None
    database = of.node.databases.get(labels[0])
    if database is not None and (options := database_options(input_, database.kind)):
        of = replace(of, frame=partial(of.frame, **options))
    return calling.data(of, (1,))[0]
