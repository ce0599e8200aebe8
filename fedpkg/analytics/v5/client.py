"""The client of version 5: that of version 4, but a task is created with a method and its arguments by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedpkg.analytics import serialise
from fedpkg.analytics.v4 import client as v4


class Task(v4.Client.Task):
    """Subtasks of this function."""

    def create(  # type: ignore[override]
        self,
        method: str,
        arguments: Mapping[str, Any] | None = None,
        organizations: Sequence[int] | None = None,
        name: str = "subtask",
        description: str | None = None,
    ) -> dict[str, Any]:
        """Create a task that runs a function at organisations, on the databases of this one.

        Raises:
            ValueError: No organisation, one that does not exist, or one twice.
            SerialisationError: An argument has a type that JSON lacks.
        """
        data = input_of(method, arguments)
        return self.parent._create(data, organizations, name, description)  # type: ignore[no-any-return]


class AlgorithmClient(v4.AlgorithmClient):
    """The client that ``@algorithm_client`` supplies.

    Args:
        token: The token of the task.
        hq_url: Of a server, which is not there: accepted and not used.
    """

    Task = Task

    def __init__(self, token: str, hq_url: str = "") -> None:
        super().__init__(token, hq_url, None, "")
        self.hq_url = hq_url
        self.session_id = 1


def input_of(method: str, arguments: Mapping[str, Any] | None) -> bytes:
    """The input of a task."""
    if not isinstance(method, str):
        raise TypeError(f"task.create: method is a {type(method).__name__}; it must be the name of a function")
    if arguments is not None and not isinstance(arguments, Mapping):
        kind = type(arguments).__name__
        raise TypeError(f"task.create: arguments of {method} is a {kind}; it must be a dict of arguments by name")
    asked = {"method": method, "args": [], "kwargs": dict(arguments or {})}
    return serialise.to_json(asked, what=f"arguments of {method}")
