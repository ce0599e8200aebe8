"""Tasks in flight: submit them, take what is received as it arrives, up to a deadline or a number of answers."""

from __future__ import annotations

import functools
import queue
import time
from collections import deque
from collections.abc import Collection
from concurrent.futures import Future
from typing import TypeAlias

from fedpkg.controller.receiving import Received, Receiver, drop
from fedpkg.controller.vetting import failed
from fedpkg.files import remove_files
from fedpkg.waist.answer import Answer, Failure
from fedpkg.waist.executor import Executor
from fedpkg.waist.order import Order

_Arrived: TypeAlias = "tuple[Order, Received | BaseException]"


class Gathering:
    """Tasks that are asked for together, or one after the other.

    `next` gives what is received in order of arrival, until ``timeout_s`` after the first task. After `cut`, tasks that
    still run are ended, and what they might have answered does not count.
    """

    def __init__(self, executor: Executor, *, timeout_s: float | None) -> None:
        self._executor = executor
        self._timeout_s = timeout_s
        self._deadline: float | None = None
        self._arrived: queue.SimpleQueue[_Arrived] = queue.SimpleQueue()
        self._waiting: set[str] = set()
        self._put_by: deque[Received] = deque()  # arrived while others were being cut

    def submit(self, order: Order, receive: Receiver) -> None:
        if self._deadline is None and self._timeout_s is not None:
            self._deadline = time.monotonic() + self._timeout_s
        self._waiting.add(order.task_id)
        self._executor.submit(order).add_done_callback(functools.partial(self._arrive, order, receive))

    def _arrive(self, order: Order, receive: Receiver, done: Future[Answer]) -> None:
        """A thread of the executor's hands in an answer; what takes time is done there."""
        received: Received | BaseException
        try:
            received = receive(order, done.result())
        except BaseException as error:  # whoever waits raises it
            received = error
        self._arrived.put((order, received))

    def next(self) -> Received | None:
        """What arrives next; None when nothing is left or the deadline has passed.

        Raises:
            Exception: whatever the executor itself failed with.
        """
        if self._put_by:
            return _unasked(self._put_by.popleft())
        if not self._waiting:
            return None
        patience = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        try:
            return _unasked(self._take(patience))
        except queue.Empty:
            return None

    def cut(self, *, late: Failure | None, only: Collection[str]) -> list[Received]:
        """End what still runs of ``only`` these tasks, and wait until it has; each as it then counts.

        With ``late`` these tasks failed (they missed the deadline), else they are cancelled: nobody needs them.
        """
        left = self._waiting & set(only)
        for task_id in left:
            self._executor.cancel(task_id)
        ended = []
        while left:
            received = self._take()
            if received.order.task_id not in left:
                self._put_by.append(received)
                continue
            left.remove(received.order.task_id)
            ended.append(self._ended(received, late))
        return ended

    def _take(self, timeout_s: float | None = None) -> Received:
        order, received = self._arrived.get(timeout=timeout_s)
        self._waiting.remove(order.task_id)
        if isinstance(received, BaseException):
            raise received
        return received

    def _ended(self, received: Received, late: Failure | None) -> Received:
        """What came too late counts as; one that failed by itself stays."""
        order, answer = received.order, received.answer
        if answer.status == "failed":
            return received
        if answer.status == "ok":  # it answered while it was being ended
            if received.path is not None:
                remove_files(received.path.parent)
            drop(self._executor, order, answer)
        ended = Answer(
            task_id=order.task_id,
            status="cancelled" if late is None else "failed",
            failure=late,
            command=answer.command,
            log_tail=answer.log_tail,
            folder=answer.folder,
            started_at=answer.started_at or time.time(),
            wall_s=answer.wall_s,
        )
        return Received(order, ended)


def _unasked(received: Received) -> Received:
    """What came without a `cut`: nobody had asked for the end of that task, so it cannot be `cancelled`."""
    if received.answer.status != "cancelled":
        return received
    failure = Failure("executor", "it was cancelled, and nobody had asked for that")
    return Received(received.order, failed(received.answer, failure))
