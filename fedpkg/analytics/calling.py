"""Calls a function of an algorithm of version 4 or 5: finds it, checks its arguments, has what its decorators supply.

An input is ``{"method": name, "args": […], "kwargs": {…}}``, as JSON. The frames, the client and the metadata that a
function gets before these arguments come from its decorators, which ask for the call that is running (`current`).
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from fedpkg.analytics import serialise
from fedpkg.analytics.current import Call, using
from fedpkg.analytics.errors import (
    AlgorithmModuleNotFoundError,
    DataFrameNotFound,
    MethodNotFoundError,
    UserInputError,
    WrongArguments,
)
from fedpkg.analytics.log import error, warn
from fedpkg.errors import nearest

MULTIPLE = "multiple"  # a source of version 5: several frames by name, as one argument
JOINED_BY = ","  # the labels of such a group
# What decorators note at the function that they return. The names of the first four are those of the published ones.
CLIENT_MARKS = ("wrapped_in_algorithm_client_decorator", "vantage6_algorithm_client_decorated")
DATA_MARKS = ("wrapped_in_data_decorator", "vantage6_dataframe_decorated")
STEP = "vantage6_decorator_step_type"
SUPPLIES = "fedpkg_supplies"  # the number of arguments that decorators put before those of the input
SOURCES = "fedpkg_sources"  # the frames among them: numbers, or MULTIPLE
_OURS = str(Path(__file__).parent)


def data(of: Call, sources: Sequence[int | str]) -> list[Any]:
    """The frames for ``@data(n)`` or ``@dataframe(…)``, in the order in which the task names their labels.

    In version 5 a task can name a group of them, joined by ",", for ``@dataframe("multiple")``. If it names no group,
    and the function takes one, that has all databases which its other arguments leave.

    Raises:
        UserInputError: The task names too few databases.
        DataFrameNotFound: The node has no such database.
    """
    groups = [is_group for one in sources for is_group in ([False] * one if isinstance(one, int) else [True])]
    labels = list(of.databases)
    if groups.count(True) == 1 and len(labels) > len(groups) and not any(JOINED_BY in one for one in labels):
        at, more = groups.index(True), len(labels) - len(groups) + 1
        labels[at : at + more] = [JOINED_BY.join(labels[at : at + more])]
    if len(labels) < len(groups):
        asked = f"the task names {', '.join(labels)}" if labels else "the task names none"
        raise UserInputError(f"the function needs {_number(len(groups), 'database')}, but {asked}")
    if len(labels) > len(groups):
        unused = ", ".join(labels[len(groups) :])
        warn(f"the function takes {_number(len(groups), 'database')}; not used: {unused}")
    found = []
    for label, is_group in zip(labels, groups, strict=False):
        frames = {name: _frame(of, name) for name in label.split(JOINED_BY)}
        if not is_group and len(frames) > 1:
            raise UserInputError(f"the function needs one database, but the task names a group of them: {label}")
        found.append(frames if is_group else next(iter(frames.values())))
    return found


def _frame(of: Call, label: str) -> Any:
    try:
        return of.frame(label)
    except KeyError:
        there = ", ".join(of.node.databases) or "none"
        raise DataFrameNotFound(f"the node has no database {label!r}; it has: {there}") from None


# ---- what is called


@dataclass(frozen=True)
class Input:
    """What an input asks for."""

    method: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


def input_of(value: Any) -> Input:
    """Check an input that was read.

    Raises:
        UserInputError: It has another form.
    """
    if not isinstance(value, dict):
        raise UserInputError(f"the input is a {type(value).__name__}; it must be a dict with 'method'")
    method, args, kwargs = value.get("method"), value.get("args"), value.get("kwargs")
    if not isinstance(method, str):
        there = ", ".join(map(repr, value)) or "nothing"
        raise UserInputError(f"the input has no 'method', the name of the function; it has: {there}")
    args, kwargs = [] if args is None else args, {} if kwargs is None else kwargs
    if not isinstance(args, (list, tuple)):
        raise UserInputError(f"'args' of the input for {method} is a {type(args).__name__}; it must be a list")
    if not isinstance(kwargs, dict):
        raise UserInputError(f"'kwargs' of the input for {method} is a {type(kwargs).__name__}; it must be a dict")
    return Input(method, args, kwargs)


def load(name: str) -> ModuleType:
    """Import an algorithm's module. Its name may have hyphens.

    Raises:
        AlgorithmModuleNotFoundError: It, or a module that it imports, does not exist.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or "?"
        if missing == name or name.startswith(missing + "."):
            raise AlgorithmModuleNotFoundError(f"there is no module {name!r} where Python looks for modules") from error
        raise AlgorithmModuleNotFoundError(
            f"module {name!r} imports {missing!r}, which is not installed for the Python that runs it"
        ) from error


def find(module: ModuleType, method: str) -> Callable[..., Any]:
    """The function of this name.

    Raises:
        MethodNotFoundError: There is none, or it cannot be called by an input.
    """
    functions = {name: one for name, one in vars(module).items() if inspect.isfunction(one) and name[0] != "_"}
    there = [name for name, one in functions.items() if _is_own(one, module)] or list(functions)
    function = getattr(module, method, None)
    if not callable(function):
        known = f" It has: {', '.join(sorted(there)) or 'no functions'}."
        what = "has no function" if function is None else f"has a {type(function).__name__}, and no function,"
        raise MethodNotFoundError(f"module {module.__name__!r} {what} {method!r}{nearest(method, there) or '.'}{known}")
    if not hasattr(function, STEP) and any(hasattr(getattr(module, name), STEP) for name in there):
        raise MethodNotFoundError(
            f"{method} of module {module.__name__!r} is not decorated with @federated or @central, as its other "
            "functions are; an input can only call functions that are"
        )
    return function  # type: ignore[no-any-return]


def _is_own(function: Callable[..., Any], module: ModuleType) -> bool:
    """Whether a function is the algorithm's, and not of a library that it imports."""
    return function.__module__.partition(".")[0] == module.__name__.partition(".")[0]


def check(function: Callable[..., Any], asked: Input, *, supplied: int | None = None) -> None:
    """Compare arguments with the function's signature.

    Args:
        supplied: The number of arguments that come before those of the input. None: that of its decorators.

    Raises:
        WrongArguments: One is missing, or is not taken; the message has the function and the argument.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return  # a function of a compiled module
    positional = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    number = getattr(function, SUPPLIES, 0) if supplied is None else supplied
    given = {one.name for one in positional[:number]}
    own = [one for one in parameters if one.name not in given]
    positional = [one for one in positional if one.name not in given]
    takes_more = any(one.kind is one.VAR_POSITIONAL for one in parameters)
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters)
    by_position = {one.name for one in positional[: len(asked.args)]}
    by_name = {one.name for one in own if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    known = ", ".join(_written(one) for one in own) or "nothing"
    where, takes = f"{asked.method}()", f"It takes: {known}."
    for name in asked.kwargs:
        if name in given:
            source = "the runner" if supplied else "its decorators"
            raise WrongArguments(f"{where} gets the argument {name!r} from {source}; the input must not give it.")
        if name in by_position and name in by_name:
            raise WrongArguments(f"{where} gets the argument {name!r} twice: in args and in kwargs. {takes}")
        if name not in by_name and not takes_any:
            raise WrongArguments(f"{where} has no argument {name!r}{nearest(str(name), by_name) or '.'} {takes}")
    if len(asked.args) > len(positional) and not takes_more:
        there = _number(len(asked.args), "argument")
        raise WrongArguments(f"{where} takes {len(positional)} by position, but the input has {there} in args. {takes}")
    needed = [one for one in own if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    bound = by_position | (by_name & asked.kwargs.keys())
    missing = [one.name for one in needed if one.name not in bound]
    if missing:
        names = ", ".join(map(repr, missing))
        raise WrongArguments(f"{where} needs {names}, which the input does not give. {takes}")


def call(function: Callable[..., Any], asked: Input, of: Call) -> Any:
    """Call a function with what an input gives and what its decorators ask for.

    Raises:
        WrongArguments: See `check`.
        Exception: Whatever the function raises, as it is.
    """
    check(function, asked)
    step = getattr(function, STEP, None)
    action = {} if step is None else {"FUNCTION_ACTION": str(getattr(step, "value", step))}
    mocked: dict[str, Any] = {}
    with running(of, asked.method, action):
        if of.mock_client is not None:
            if any(hasattr(function, mark) for mark in CLIENT_MARKS):
                mocked["mock_client"] = of.mock_client()
            if any(hasattr(function, mark) for mark in DATA_MARKS):
                mocked["mock_data"] = data(of, getattr(function, SOURCES, (len(of.databases),)))
        return function(*asked.args, **asked.kwargs, **mocked)


@contextmanager
def running(of: Call, method: str, more: Mapping[str, str] | None = None) -> Iterator[None]:
    """Make a call the running one, with the variables of its node's environment, and more, for a while."""
    with using(of), _environment({**of.node.environment, **(more or {}), "ALGORITHM_METHOD": method}):
        yield


def answer(module: str, input_: bytes, of: Call) -> bytes:
    """Answer an input of version 4 or 5, both as bytes.

    Raises:
        AlgorithmError: The input is no input, or the algorithm has no such function.
        SerialisationError: The result has a type that JSON lacks.
        Exception: Whatever the function raises.
    """
    asked = input_of(serialise.from_json(input_, what="the input"))
    function = find(load(module), asked.method)
    return serialise.to_json(call(function, asked, of), what=f"result of {asked.method}")


def traceback_of(error: BaseException) -> str:
    """An error with its traceback from the algorithm's own code on, as Python prints it."""
    place = error.__traceback__
    while place is not None and place.tb_frame.f_code.co_filename.startswith(_OURS):
        place = place.tb_next
    return "".join(traceback.format_exception(type(error), error, place)).rstrip()


@contextmanager
def ending_on_error(*, log_traceback: bool) -> Iterator[None]:
    """After an error, print it, with its traceback if that is wanted, and end the process with exit code 1."""
    try:
        yield
    except Exception as failure:  # whatever the algorithm raises
        error(traceback_of(failure) if log_traceback else f"{type(failure).__name__}: {failure}")
        sys.exit(1)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _written(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}
    star = next((stars[one] for one in stars if one == parameter.kind), "")
    default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
    return f"{star}{parameter.name}{default}"


def _number(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
