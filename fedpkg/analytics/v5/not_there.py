"""Published functions that extract and preprocess data: they can be imported; a call says that they are not there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fedpkg.analytics.v5.decorators import refused
from fedpkg.analytics.words import AlgorithmStepType

_EXTRACTION = ("read_csv", "read_excel", "read_parquet", "read_sparql_database", "read_sql_database")


def __getattr__(name: str) -> Callable[..., Any]:
    if name.startswith("_"):
        raise AttributeError(name)

    def function(*args: Any, **kwargs: Any) -> Any: ...

    function.__name__ = function.__qualname__ = name
    is_extraction = name in _EXTRACTION
    return refused(function, AlgorithmStepType.DATA_EXTRACTION if is_extraction else AlgorithmStepType.PREPROCESSING)
