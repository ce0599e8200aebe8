"""The seam: orders in, answers out. The controller knows nothing else of processes, clusters or networks."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Protocol

from fedpkg.waist.answer import Answer
from fedpkg.waist.order import Order, ReplySpec


class ClientStates(Protocol):
    """What clients keep from task to task. It belongs to the side that runs tasks; the controller knows tokens only.

    A token names one version of one client's state; it stays valid until it is forgotten.
    """

    def damage(self, session_id: str, client_id: str, token: str, checksum: str | None = None) -> str:
        """What is wrong with a version, in words (`it is missing: …`); empty: nothing.

        ``checksum``: of an answer that was recorded, and not committed, by a controller that was killed.
        """
        ...

    def commit(self, session_id: str, states: Mapping[str, str | None]) -> None:
        """Have these versions, by client, survive a power cut: the store is about to name them as current."""
        ...

    def forget(self, session_id: str, states: Mapping[str, str | None]) -> None:
        """Remove every version of these clients but the named one, which is current; None: all."""
        ...

    def discard(self, session_id: str, client_id: str, token: str) -> None:
        """Remove one version, which nobody will name."""
        ...


class Executor(Protocol):
    """Runs orders somewhere. docs/reference/executor-contract.md says what an implementation owes; a suite tests it."""

    @property
    def states(self) -> ClientStates:
        """What the clients keep."""
        ...

    @property
    def is_ours(self) -> bool:
        """Whether replies were checked by code of ours, on this machine or where it is trusted as much.

        Of what it answers as ok, the controller then looks at the form again, not at the numbers.
        """
        ...

    @property
    def slots(self) -> int:
        """How many tasks run at the same time."""
        ...

    @property
    def is_warming(self) -> bool:
        """Whether a task waits for an interpreter that does its imports. For people who wait."""
        ...

    def know(self, spec: ReplySpec, digest: str) -> None:
        """Orders will name this specification by its digest. To hand one over again changes nothing."""
        ...

    def submit(self, order: Order) -> Future[Answer]:
        """Queue an order. Its future always gets an `Answer`, never an exception, unless fedpkg itself is at fault.

        The future's callbacks call `fetch`, `discard` and `states`, and wait for them, in the thread that completes it.

        Raises:
            DispatchError: it is closed, or the order names a package or a specification that it was not given.
        """
        ...

    def cancel(self, task_id: str) -> None:
        """End a task that is queued or running; its answer then says ``cancelled``. Unknown ids are ignored."""
        ...

    def fetch(self, order: Order, answer: Answer, into: Path) -> None:
        """Bring the files of an answer's reply into the folder ``into``, which they alone will be in. Once.

        The reply is that of the order's task; the answer is what was kept of it.

        Raises:
            OSError: they cannot be brought, or written there.
        """
        ...

    def discard(self, order: Order, answer: Answer) -> None:
        """Nobody needs an answer that was ok: its reply, if it was not fetched, and the state that it left can go.

        Raises:
            OSError: something stays; nobody will ask for it.
        """
        ...

    def close(self) -> None:
        """End every task and every process of this executor; returns when they are gone."""
        ...
