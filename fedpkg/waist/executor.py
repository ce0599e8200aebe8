"""The executor protocol: orders in, answers out. The controller does not know about processes, clusters or networks."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Protocol

from fedpkg.waist.answer import Answer
from fedpkg.waist.order import Order, ReplySpec


class ClientStates(Protocol):
    """The clients' state from task to task. It is kept by the side that runs tasks; the controller knows only tokens.

    A token identifies one version of one client's state; it is valid until it is forgotten.
    """

    def damage(self, session_id: str, client_id: str, token: str, checksum: str | None = None) -> str:
        """What is wrong with a version, as text (`it is missing: …`); empty if nothing is.

        ``checksum``: from an answer that was recorded but not committed by a controller that was killed.
        """
        ...

    def commit(self, session_id: str, states: Mapping[str, str | None]) -> None:
        """Make these versions, by client, survive a power cut: the store is about to record them as current."""
        ...

    def forget(self, session_id: str, states: Mapping[str, str | None]) -> None:
        """Remove all versions of these clients but the given one, which is current; None: all."""
        ...

    def discard(self, session_id: str, client_id: str, token: str) -> None:
        """Remove one version, which will never be used again."""
        ...


class Executor(Protocol):
    """Runs orders somewhere. docs/reference/executor-contract.md is its contract, which a test suite checks."""

    @property
    def states(self) -> ClientStates:
        """The clients' states."""
        ...

    @property
    def is_ours(self) -> bool:
        """Whether replies were checked by fedpkg's own code, on this machine or an equally trusted one.

        The controller then checks only the form of successful replies again, not their values.
        """
        ...

    @property
    def slots(self) -> int:
        """The number of tasks that run at the same time."""
        ...

    @property
    def is_warming(self) -> bool:
        """Whether a task waits for an interpreter that does its imports, for progress displays."""
        ...

    def know(self, spec: ReplySpec, digest: str) -> None:
        """Register a specification, which orders refer to by its digest. Repeating this has no effect."""
        ...

    def submit(self, order: Order) -> Future[Answer]:
        """Queue an order. Its future always gets an `Answer`, never an exception, except for a bug in fedpkg.

        The future's callbacks call `fetch`, `discard` and `states`, and wait for them, in the thread that completes it.

        Raises:
            DispatchError: If it is closed, or does not have the order's package or specification.
        """
        ...

    def cancel(self, task_id: str) -> None:
        """End a task that is queued or running; its answer is then ``cancelled``. Unknown ids are ignored."""
        ...

    def fetch(self, order: Order, answer: Answer, into: Path) -> None:
        """Bring the files of an answer's reply into the folder ``into``, which has no other files. Called once.

        The reply is that of the order's task; the answer is the recorded one.

        Raises:
            OSError: If they cannot be brought, or written there.
        """
        ...

    def discard(self, order: Order, answer: Answer) -> None:
        """Remove an unneeded answer's reply, if it was not fetched, and the state that its task left.

        Raises:
            OSError: If something cannot be removed; it will not be used.
        """
        ...

    def close(self) -> None:
        """End every task and every process of this executor; returns when they are gone."""
        ...
