"""Steps that a user asks for before a function gets a data frame: ``[{"function": …, "parameters": {…}}]``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedpkg.analytics.errors import UserInputError
from fedpkg.errors import nearest


def preprocess_data(data: Any, preproc_input: Sequence[Mapping[str, Any]]) -> Any:
    """Apply steps to a frame, one after the other.

    Raises:
        UserInputError: A step names no function, or one that is not there, or other parameters than it takes.
    """
    if isinstance(preproc_input, Mapping):
        raise UserInputError(
            "preprocessing is a dict; it must be a list of steps, each with 'function' and 'parameters'"
        )
    for number, step in enumerate(preproc_input, 1):
        where = f"preprocessing step {number}"
        name = step.get("function") if isinstance(step, Mapping) else None
        if name is None:
            raise UserInputError(f"{where} has no 'function'; there are: {', '.join(STEPS)}")
        if name not in STEPS:
            near = nearest(str(name), STEPS) or "."
            raise UserInputError(f"{where}: there is no function {name!r}{near} There are: {', '.join(STEPS)}")
        parameters = step.get("parameters") or {}
        taken = dict(list(inspect.signature(STEPS[name]).parameters.items())[1:])
        for parameter in parameters:
            if parameter not in taken:
                raise UserInputError(f"{where}: {name} has no parameter {parameter!r}; it takes: {', '.join(taken)}")
        for parameter, about in taken.items():
            if about.default is about.empty and parameter not in parameters:
                raise UserInputError(f"{where}: {name} needs the parameter {parameter!r}")
        data = STEPS[name](data, **parameters)
    return data


def filter_range(
    df: Any,
    column: str,
    min_: float | None = None,
    max_: float | None = None,
    include_min: bool = False,
    include_max: bool = False,
) -> Any:
    """Keep the rows whose value in a column lies between two bounds. Without ``include_…`` a bound itself does not."""
    if column not in df.columns:
        raise UserInputError(f"filter_range: there is no column {column!r}")
    values = df[column]
    if min_ is not None:
        df = df[values >= min_ if include_min else values > min_]
        values = df[column]
    if max_ is not None:
        df = df[values <= max_ if include_max else values < max_]
    return df


def dummy_preprocess(df: Any) -> Any:
    """Keep everything."""
    return df


STEPS: dict[str, Callable[..., Any]] = {"filter_range": filter_range, "dummy_preprocess": dummy_preprocess}
