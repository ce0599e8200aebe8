"""The call that is running in this process: whatever a function of an algorithm can reach without an argument."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fedpkg.analytics.backend import Backend
from fedpkg.analytics.node import Node


@dataclass(frozen=True)
class Call:
    """A call of a central or partial function at a node.

    Args:
        backend: Runs the tasks that the function creates.
        databases: The labels of the databases that the task names, in the order of the task.
        frame: Reads the database with a label, as the node's policy lets algorithms see it; a DataFrame. KeyError: the
            node has no such database.
        mock_client: Makes the client of a mock, which functions get as ``mock_client``, with the frames as
            ``mock_data``; None: their decorators make the client.
    """

    backend: Backend
    node: Node
    databases: Sequence[str]
    frame: Callable[[str], Any]
    mock_client: Callable[[], Any] | None = None


_now: list[Call] = []


def use(call: Call) -> None:
    """Make this the running call."""
    _now[:] = [call]


@contextmanager
def using(call: Call) -> Iterator[None]:
    """Make this the running call for a while; calls in this process are inside each other."""
    before = _now[:]
    use(call)
    try:
        yield
    finally:
        _now[:] = before


def current() -> Call | None:
    """The running call; None: the function was called by hand."""
    return _now[0] if _now else None
