"""Tasks in flight: submit them, take results as they arrive, up to a deadline or a number of answers."""

from __future__ import annotations

import functools
import queue
import threading
import time
from collections import deque
from collections.abc import Collection
from concurrent.futures import Future

from fedpkg.dispatch.base import Executor, Failure, Task, TaskResult
from fedpkg.files import remove_tree

OPEN_BYTES = 64 << 20  # of replies that wait: parts of a mapped file may be copies in memory


class Gathering:
    """Tasks that are asked for together, or one after the other.

    `next` gives results in order of arrival, until ``timeout_s`` after the first task. After `cut`, tasks that still
    run are ended, and what they might have answered does not count.
    """

    def __init__(self, executor: Executor, *, timeout_s: float | None) -> None:
        self._executor = executor
        self._timeout_s = timeout_s
        self._deadline: float | None = None
        self._arrived: queue.SimpleQueue[tuple[Task, TaskResult | BaseException]] = queue.SimpleQueue()
        self._open_bytes = 0  # of replies that have arrived, are mapped, and wait to be taken
        self._lock = threading.Lock()
        self._waiting: set[str] = set()
        self._put_by: deque[TaskResult] = deque()  # arrived while others were being cut

    def submit(self, task: Task) -> None:
        if self._deadline is None and self._timeout_s is not None:
            self._deadline = time.monotonic() + self._timeout_s
        self._waiting.add(task.task_id)
        self._executor.submit(task).add_done_callback(functools.partial(self._arrive, task))

    def _arrive(self, task: Task, done: Future[TaskResult]) -> None:
        """An executor's thread hands in a result. Few that wait stay open, or memory would grow with clients."""
        if error := done.exception():
            self._arrived.put((task, error))
            return
        result = done.result()
        if result.weights is not None or result.sets:
            with self._lock:
                if self._open_bytes and self._open_bytes + result.reply_bytes > OPEN_BYTES:
                    result = result.closed()
                else:
                    self._open_bytes += result.reply_bytes
        self._arrived.put((task, result))

    def next(self) -> TaskResult | None:
        """The next result; None when none is left or the deadline has passed.

        Raises:
            Exception: whatever the executor itself failed with.
        """
        if self._put_by:
            return self._put_by.popleft()
        if not self._waiting:
            return None
        patience = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        try:
            return self._take(patience)
        except queue.Empty:
            return None

    def cut(self, *, late: Failure | None, only: Collection[str] | None = None) -> list[TaskResult]:
        """End what still runs (``only`` these tasks of it) and wait until it has; one result each.

        With ``late`` these tasks failed (they missed the deadline), else they are cancelled: nobody needs them.
        """
        left = self._waiting & set(self._waiting if only is None else only)
        for task_id in left:
            self._executor.cancel(task_id)
        results = []
        while left:
            result = self._take()
            if result.task.task_id not in left:
                self._put_by.append(result)
                continue
            left.remove(result.task.task_id)
            results.append(_ended(result, late))
        return results

    def _take(self, timeout_s: float | None = None) -> TaskResult:
        task, result = self._arrived.get(timeout=timeout_s)
        self._waiting.remove(task.task_id)
        if isinstance(result, BaseException):
            raise result
        if result.weights is not None or result.sets:
            with self._lock:
                self._open_bytes -= result.reply_bytes
        return result


def _ended(result: TaskResult, late: Failure | None) -> TaskResult:
    """What a result that came too late counts as; one that failed by itself stays."""
    if result.status == "ok":  # it answered while it was being ended
        remove_tree(result.task.next_state)
        if result.reply is not None:
            remove_tree(result.reply.parent)
    if result.status == "failed":
        return result
    return TaskResult(
        result.task,
        "cancelled" if late is None else "failed",
        failure=late,
        command=result.command,
        log_tail=result.log_tail,
        started_at=result.started_at or time.time(),
        wall_s=result.wall_s,
    )
