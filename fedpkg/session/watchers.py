"""Delivery of events to the watchers of a session: each watcher has its own queue and thread."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from fedpkg.controller.events import (
    CombinerReported,
    Event,
    RequestAsked,
    SessionEnded,
    TaskEnded,
    TaskStarted,
    Warming,
    Watcher,
)
from fedpkg.session.control import Control, beside

logger = logging.getLogger("fedpkg.session")

MAX_WAITING = 4096  # events per watcher
PATIENCE_S = 10.0
LOOK_S = 0.1
_OF_TASKS = (RequestAsked, TaskStarted, TaskEnded, CombinerReported)


class Watchers:
    """Passes events to watchers without waiting for them: see `Line`."""

    def __init__(self, watchers: Iterable[Watcher]) -> None:
        self._lines = [Line(watcher) for watcher in watchers]
        self._lock = threading.Lock()
        self._has_ended = False

    def put(self, event: Event) -> None:
        """Any thread may call this. `SessionEnded` is the last event: a `Warming` after it is dropped."""
        with self._lock:
            if self._has_ended and isinstance(event, Warming):
                return
            self._has_ended = isinstance(event, SessionEnded)
            for line in self._lines:
                line.put(event)

    def close(self, patience_s: float = PATIENCE_S) -> None:
        """Return when all watchers have received all events, or after ``patience_s``."""
        for line in self._lines:
            line.finish()
        deadline = time.monotonic() + patience_s
        for line in self._lines:
            line.join(max(0.0, deadline - time.monotonic()))


@contextmanager
def telling_of_warmth(control: Control, put: Watcher) -> Iterator[None]:
    """During the block, emit `Warming` when tasks start or stop waiting for an interpreter."""

    def look(is_over: threading.Event) -> None:
        was_warming = False
        while not is_over.wait(LOOK_S):
            if control.is_warming != was_warming:
                was_warming = not was_warming
                put(Warming(is_warming=was_warming))

    with beside("fedpkg-warmth", look):
        yield


class Line:
    """The queue of events for one watcher, and the thread that delivers them in order.

    Only the watcher's first exception is logged; later events are still delivered. When ``max_waiting`` events wait,
    those about tasks, requests and combiners are dropped; if the others fill more than half of the queue, the oldest of
    them are dropped too. The first drop is logged.
    """

    def __init__(self, watcher: Watcher, *, max_waiting: int = MAX_WAITING) -> None:
        self._watcher = watcher
        self._max_waiting = max_waiting
        self._waiting: deque[Event] = deque()
        self._changed = threading.Condition()
        self._is_finished = self._has_failed = self._has_dropped = False
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._hand_over, name="fedpkg-watcher", daemon=True)
        self._thread.start()

    def put(self, event: Event) -> None:
        with self._changed:
            if len(self._waiting) >= self._max_waiting:
                self._drop()
            self._waiting.append(event)
            self._changed.notify()

    def finish(self) -> None:
        """Mark the end of the events."""
        with self._changed:
            self._is_finished = True
            self._changed.notify()

    def join(self, patience_s: float) -> None:
        """Wait until all events are delivered; a watcher that is busy with one event has ``patience_s`` for it."""
        since = self._busy_since
        self._thread.join(patience_s if since is None else max(0.0, since + patience_s - time.monotonic()))
        if self._thread.is_alive():
            with self._changed:
                left = len(self._waiting)
                self._waiting.clear()
            logger.warning("watcher.hangs watcher=%r events_left=%d", self._watcher, left)

    def _drop(self) -> None:
        kept = [event for event in self._waiting if not isinstance(event, _OF_TASKS)]
        if len(kept) > self._max_waiting // 2:
            kept = kept[-(self._max_waiting // 2) :]
        dropped = len(self._waiting) - len(kept)
        self._waiting = deque(kept)
        if not self._has_dropped:
            self._has_dropped = True
            logger.warning("watcher.slow watcher=%r dropped=%d; said once", self._watcher, dropped)

    def _hand_over(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._is_finished:
                        return
                    self._changed.wait()
                event = self._waiting.popleft()
                self._busy_since = time.monotonic()
            try:
                self._watcher(event)
            except BaseException:  # also SystemExit and the like: a watcher must not affect the session
                if not self._has_failed:
                    self._has_failed = True
                    logger.exception("watcher.failed watcher=%r; said once", self._watcher)
            self._busy_since = None
