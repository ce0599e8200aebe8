"""How another thread or process stops a running session: as by Ctrl-C, its thread is interrupted where it waits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from fedpkg.errors import Interrupted, StoreError
from fedpkg.stores.home import Home
from fedpkg.stores.opening import open_store

if TYPE_CHECKING:
    from fedpkg.waist.answer import Answer
    from fedpkg.waist.executor import Executor
    from fedpkg.waist.order import Order


LOOKS_EVERY_S = 0.1  # a query of one row takes 15 µs


class Control:
    """Stops a session by KeyboardInterrupt in its thread: where it waits for a task, dispatches one, or emits an event;
    during preparation, where it waits for its turn, makes an environment, or writes the clients' data.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waited_for: set[Future[Any]] = set()
        self._is_requested = False
        self._executor: Executor | None = None

    def stop(self) -> None:
        with self._lock:
            self._is_requested = True
            waited_for, self._waited_for = self._waited_for, set()
        for future in waited_for:
            future.set_exception(KeyboardInterrupt())

    def check(self) -> None:
        """Raises KeyboardInterrupt if a stop was requested."""
        if self._is_requested:
            raise KeyboardInterrupt

    @contextmanager
    def holding(self, lock: threading.Lock) -> Iterator[None]:
        """Hold a lock. Raises KeyboardInterrupt if a stop is requested before the lock is free."""
        while not lock.acquire(timeout=LOOKS_EVERY_S):
            self.check()
        try:
            yield
        finally:
            lock.release()

    def guard(self, executor: Executor) -> Guarded:
        """The executor for the session. After `stop`, its tasks continue until they are ended."""
        self._executor = executor
        return Guarded(executor, self)

    @property
    def is_warming(self) -> bool:
        """Whether a task of the session waits for an interpreter that does its imports."""
        return self._executor is not None and self._executor.is_warming

    def follow(self, running: Future[Any]) -> Future[Any]:
        """A future with the result of another one, or KeyboardInterrupt if a stop is requested first."""
        follower: Future[Any] = Future()
        with self._lock:
            self.check()
            self._waited_for.add(follower)
        running.add_done_callback(lambda done: self._pass_on(done, follower))
        return follower

    def _pass_on(self, done: Future[Any], follower: Future[Any]) -> None:
        with self._lock:
            if follower not in self._waited_for:
                return
            self._waited_for.remove(follower)
        if error := done.exception():
            follower.set_exception(error)
        else:
            follower.set_result(done.result())


def interrupted(session_id: str = "") -> Interrupted:
    """The error for a session that was stopped before it ran; ``session_id`` is that of a session in the store."""
    if session_id:
        message, hint = f"interrupted before session {session_id} was resumed", f"fedpkg session resume {session_id}"
        return Interrupted(message, hint=hint)
    return Interrupted("interrupted before the session began; nothing was recorded")


@contextmanager
def beside(name: str, work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run a function in a separate thread during the block; it must return when the event is set."""
    ended = threading.Event()
    thread = threading.Thread(target=work, args=(ended,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def heeding_requests(home: Home, session_id: str, control: Control) -> Iterator[None]:
    """Stop the session when any process requests it in the store (`StateStore.request_stop`)."""

    def look(ended: threading.Event) -> None:
        while not ended.wait(LOOKS_EVERY_S):
            # After an error, which the session gets as well, the database is opened again.
            with suppress(StoreError), open_store(home, read_only=True) as store:
                while not store.stop_requested(session_id):
                    if ended.wait(LOOKS_EVERY_S):
                        return
                control.stop()
                return

    with beside("fedpkg-stop-requests", look):
        yield


class Guarded:
    """One session's view of an `Executor`."""

    def __init__(self, executor: Executor, control: Control) -> None:
        self._executor = executor
        self._control = control
        self._in_flight: dict[str, Future[Answer]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    def submit(self, order: Order) -> Future[Answer]:
        self._control.check()
        running = self._in_flight[order.task_id] = self._executor.submit(order)
        running.add_done_callback(lambda _done: self._in_flight.pop(order.task_id, None))
        return self._control.follow(running)

    def end_tasks(self) -> None:
        """End the tasks in flight, and return when they have ended."""
        left = dict(self._in_flight)
        for task_id in left:
            self._executor.cancel(task_id)
        wait(left.values())
