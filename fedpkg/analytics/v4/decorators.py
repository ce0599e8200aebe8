"""Decorators of version 4, which put a client, data frames or metadata before the arguments of an input.

The one that is written last, next to ``def``, supplies the arguments that come first: ``@data(1)`` above
``@algorithm_client`` calls ``f(client, frame, …)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

from fedpkg.analytics import calling
from fedpkg.analytics.errors import AlgorithmInitializationError, UserInputError
from fedpkg.analytics.log import warn
from fedpkg.analytics.v4 import environment
from fedpkg.analytics.v4.client import AlgorithmClient

Function = Callable[..., Any]


@dataclass
class TaskMetaData:
    """The ids and files of a task that ``@metadata`` supplies in versions 4 and 5."""

    task_id: int | None
    node_id: int | None
    collaboration_id: int | None
    organization_id: int | None
    temporary_directory: Path | None
    output_file: Path | None
    input_file: Path | None


@dataclass
class RunMetaData(TaskMetaData):
    """What ``@metadata`` supplies: the task's ids and its files."""

    token_file: Path | None


@dataclass
class OHDSIMetaData:
    """What ``@database_connection`` would supply; see there."""

    database: str | None
    cdm_schema: str | None
    results_schema: str | None
    incremental_folder: Path | None
    cohort_statistics_folder: Path | None
    export_folder: Path | None
    dbms: str | None


def algorithm_client(func: Function) -> Function:
    """Supply a client, which creates subtasks. ``mock_client`` takes its place."""

    @wraps(func)
    def wrapper(*args: Any, mock_client: Any = None, **kwargs: Any) -> Any:
        client = AlgorithmClient(**environment.of_client()) if mock_client is None else mock_client
        return func(client, *args, **kwargs)

    wrapper.wrapped_in_algorithm_client_decorator = True  # type: ignore[attr-defined]
    return supplying(wrapper, func, 1)


def data(number_of_databases: int = 1) -> Callable[[Function], Function]:
    """Supply the first databases that the task names, as data frames in that order. ``mock_data`` takes their place."""
    if not isinstance(number_of_databases, int):
        raise TypeError("@data needs the number of databases: write @data(1)")

    def decorate(func: Function) -> Function:
        @wraps(func)
        def wrapper(*args: Any, mock_data: Sequence[Any] | None = None, **kwargs: Any) -> Any:
            if mock_data is None:
                frames = calling.data(environment.call(), (number_of_databases,))
            else:
                frames = list(mocked(mock_data, number_of_databases))
            return func(*frames, *args, **kwargs)

        wrapper.wrapped_in_data_decorator = True  # type: ignore[attr-defined]
        setattr(wrapper, calling.SOURCES, (number_of_databases,))
        return supplying(wrapper, func, number_of_databases)

    return decorate


def metadata(func: Function) -> Function:
    """Supply the `RunMetaData` of the task."""

    @wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return func(RunMetaData(**about_task()), *args, **kwargs)

    return supplying(wrapper, func, 1)


def about_task() -> dict[str, Any]:
    """The ids and files of the running task."""
    backend = environment.call().backend
    names = ("task_id", "node_id", "collaboration_id", "organization_id")
    return {**{name: getattr(backend, name) for name in names}, **environment.files()}


def database_connection(types: Sequence[str], include_metadata: bool = True) -> Callable[[Function], Function]:
    """Supply connections to OMOP databases. That is not possible here: a call says what to use instead."""

    def decorate(func: Function) -> Function:
        @wraps(func)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            raise AlgorithmInitializationError(
                f"{func.__name__} asks for a connection to {', '.join(types)}: that needs R with DatabaseConnector, "
                "and the Python packages rpy2 and ohdsi-database-connector, which are not used here. Read the tables "
                "with a query instead: a database of type sql, and @data(1)"
            )

        return supplying(wrapper, func, len(types) * (2 if include_metadata else 1))

    return decorate


def _get_user_database_labels() -> list[str]:
    """The labels of the databases that the task names. Published algorithms have decorators that ask for them."""
    return list(environment.call().databases)


def get_ohdsi_metadata(label: str) -> OHDSIMetaData:
    """Not possible: see `database_connection`."""
    raise AlgorithmInitializationError(f"database {label!r}: OMOP databases are not read; use one of type sql")


def supplying(wrapper: Function, func: Function, number: int) -> Function:
    """Note how many arguments a decorator supplies, in addition to those below it."""
    setattr(wrapper, calling.SUPPLIES, getattr(func, calling.SUPPLIES, 0) + number)
    return wrapper


def mocked(mock_data: Sequence[Any], number: int) -> Sequence[Any]:
    """The frames of ``mock_data`` that a function takes."""
    if not isinstance(mock_data, (list, tuple)):
        raise UserInputError(f"mock_data is a {type(mock_data).__name__}; it must be a list of data frames")
    if len(mock_data) < number:
        raise UserInputError(f"the function needs {number} databases, but mock_data has {len(mock_data)}")
    if len(mock_data) > number:
        warn(f"the function takes {number} databases; the other {len(mock_data) - number} of mock_data are not used")
    return mock_data[:number]
