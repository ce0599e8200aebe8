"""Decorators of version 5: what kind of function it is, and what it gets before its arguments.

``@central`` and ``@federated`` declare a function that a task can call. ``@dataframe(…)``, ``@algorithm_client`` and
``@metadata`` supply arguments; the one next to ``def`` supplies those that come first. Functions that extract data or
preprocess a session's data frames can be declared, so that their module can be imported, but not called.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

from fedpkg.analytics import calling, tokens
from fedpkg.analytics.errors import SessionActionMismatchError, UserInputError
from fedpkg.analytics.v4 import environment
from fedpkg.analytics.v4.client import AlgorithmClient
from fedpkg.analytics.v4.decorators import TaskMetaData, about_task, mocked, supplying
from fedpkg.analytics.words import AlgorithmStepType

Function = Callable[..., Any]
NO_EXTRACTION = (
    "there are no sessions, and no extraction or preprocessing of their data frames: the runner reads each node's "
    "databases (csv, parquet, excel, sql …) as its configuration names them"
)


@dataclass
class RunMetaData(TaskMetaData):
    """What ``@metadata`` supplies: the task's ids, its files and its kind."""

    token: str | None
    action: str | None


def central(func: Function) -> Function:
    """Declare a function that combines what others send; its task runs at one organization."""
    return _declared(func, AlgorithmStepType.CENTRAL_COMPUTE)


def federated(func: Function) -> Function:
    """Declare a function that runs at each organization, on its data."""
    return _declared(func, AlgorithmStepType.FEDERATED_COMPUTE)


def _declared(func: Function, step: AlgorithmStepType) -> Function:
    @wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        running = os.environ.get("FUNCTION_ACTION", step)
        if running != step:
            raise SessionActionMismatchError(f"{func.__name__} is declared as {step}, but its task is a {running}")
        return func(*args, **kwargs)

    setattr(wrapper, calling.STEP, step)
    return wrapper


def algorithm_client(func: Function) -> Function:
    """Supply a client, which creates subtasks. ``mock_client`` takes its place."""

    @wraps(func)
    def wrapper(*args: Any, mock_client: Any = None, **kwargs: Any) -> Any:
        client = mock_client
        if client is None:
            about = environment.of_client()
            port = f":{about['port']}" if about["port"] else ""
            client = AlgorithmClient(about["token"], hq_url=f"{about['host']}{port}{about['path']}")
        return func(client, *args, **kwargs)

    wrapper.vantage6_algorithm_client_decorated = True  # type: ignore[attr-defined]
    return supplying(wrapper, func, 1)


def dataframe(*sources: int | str) -> Callable[[Function], Function]:
    """Supply data frames, in the order in which the task names them. ``mock_data`` takes their place.

    Args:
        sources: Numbers of frames, one argument each, or "multiple": several frames by name, as one argument. One
            frame, by default.
    """
    sources = sources or (1,)
    for one in sources:
        if callable(one):
            raise TypeError("@dataframe is written with parentheses: @dataframe(1)")
        if not isinstance(one, int) and one != calling.MULTIPLE:
            raise UserInputError(f"@dataframe({one!r}): a source is a number of frames or {calling.MULTIPLE!r}")
    number = sum(one if isinstance(one, int) else 1 for one in sources)

    def decorate(func: Function) -> Function:
        if hasattr(func, calling.SOURCES):
            raise TypeError(f"{func.__name__} has two @dataframe: write one, such as @dataframe(2)")

        @wraps(func)
        def wrapper(*args: Any, mock_data: Sequence[Any] | None = None, **kwargs: Any) -> Any:
            if mock_data is None:
                frames = calling.data(environment.call(), sources)
            else:
                frames = list(mocked(mock_data, number))
            return func(*frames, *args, **kwargs)

        wrapper.vantage6_dataframe_decorated = True  # type: ignore[attr-defined]
        setattr(wrapper, calling.SOURCES, sources)
        return supplying(wrapper, func, number)

    return decorate


def dataframes(func: Function) -> Function:
    """Supply several data frames by name, as one dict."""
    return dataframe(calling.MULTIPLE)(func)


def metadata(func: Function) -> Function:
    """Supply the `RunMetaData` of the task."""

    @wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        backend = environment.call().backend
        action = os.environ.get("FUNCTION_ACTION")
        token = tokens.of(backend) if action == AlgorithmStepType.CENTRAL_COMPUTE else None
        shared = about_task()
        del shared["token_file"]
        return func(RunMetaData(**shared, token=token, action=action), *args, **kwargs)

    wrapper.vantage6_metadata_decorated = True  # type: ignore[attr-defined]
    return supplying(wrapper, func, 1)


def data_extraction(func: Function) -> Function:
    """Declare a function that reads a source of data. It cannot be called here."""
    return refused(func, AlgorithmStepType.DATA_EXTRACTION)


def preprocessing(func: Function) -> Function:
    """Declare a function that changes a session's data frame. It cannot be called here."""
    return refused(func, AlgorithmStepType.PREPROCESSING)


def omop_data_extraction(include_metadata: bool = True) -> Callable[[Function], Function]:
    """Declare a function that reads an OMOP database. It cannot be called here."""
    return data_extraction


def refused(func: Function, step: AlgorithmStepType) -> Function:
    """A function that a module can have, but that says when it is called that it is not there."""

    @wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{func.__name__}: {NO_EXTRACTION}")

    setattr(wrapper, calling.STEP, step)
    return wrapper
