"""Run the points of a sweep, side by side if asked, and resume it."""

from __future__ import annotations

import functools
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, TypeAlias

from fedpkg.config_reading import config_from_json
from fedpkg.controller.events import Estimated, Event, RoundFinished, SessionStarted
from fedpkg.errors import FedpkgError, Interrupted, NotFound, StoreError
from fedpkg.experiments.planning import session_name
from fedpkg.experiments.record import this_process
from fedpkg.files import NO_SPACE
from fedpkg.log import event as log_event
from fedpkg.session import beginning
from fedpkg.session.session import Session
from fedpkg.session.workshop import Workshop
from fedpkg.stores.base import SessionRow, SweepPointRow, SweepRow
from fedpkg.stores.home import Home
from fedpkg.stores.opening import open_store
from fedpkg.stores.sql import StateStore

if TYPE_CHECKING:
    from fedpkg.session.estimate import Estimate
    from fedpkg.types import Json

logger = logging.getLogger("fedpkg.experiments")
LOOKS_EVERY_S = 0.2
_SHARED = ("executor", "environment", "isolate")  # sections that sessions with one executor have in common

# Called with a point and an event of its session; None: the point itself has changed. An `Estimated` without a session
# is about all points that are left.
Watch: TypeAlias = Callable[[SweepPointRow, "Event | None"], None]


class Points(Protocol):
    """The points that are left to run."""

    def take(self) -> SweepPointRow | None:
        """The next point; None: there is none (now)."""

    def saw(self, point: SweepPointRow, event: RoundFinished) -> bool:
        """Take note of a round; whether the point is not worth its other rounds. Called from another thread."""

    def ended(self, point: SweepPointRow, session: SessionRow | None) -> SweepPointRow:
        """Take note that the point has ended; the point with its value.

        Raises:
            FedpkgError: the sweep cannot go on.
        """


class Listed:
    """Points that are all known, those first that share an executor with those before."""

    def __init__(self, points: Iterable[SweepPointRow]) -> None:
        by_kind: dict[str, list[SweepPointRow]] = {}
        for point in points:
            by_kind.setdefault(kind_of(point), []).append(point)
        self._left = deque(point for kind in by_kind.values() for point in kind)

    def take(self) -> SweepPointRow | None:
        return self._left.popleft() if self._left else None

    def saw(self, point: SweepPointRow, event: RoundFinished) -> bool:
        return False

    def ended(self, point: SweepPointRow, session: SessionRow | None) -> SweepPointRow:
        return point


def kind_of(point: SweepPointRow) -> str:
    """Points of one kind can share an executor."""
    config: dict[str, Json] = point.config or {}
    return repr([config.get(key) for key in (*_SHARED, "python_env")])


@dataclass(eq=False)
class _Running:
    """A point that runs, in a thread."""

    point: SweepPointRow
    session: Session
    is_pruned: bool = False
    error: BaseException | None = None
    row: SessionRow | None = None
    thread: threading.Thread | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class SweepRun:
    """One run of a sweep, from its start or resumption until all points have ended or it is stopped.

    Args:
        watch: is called in several threads, one at a time.
        later: estimates what the other points need, once the first one is finished. Raises StoreError: the disk cannot
            hold them.
        new: the points to record with the sweep; None: both are on record.
    """

    def __init__(
        self,
        home: Home,
        sweep: SweepRow,
        points: Points,
        *,
        parallel: int,
        watch: Watch,
        later: Callable[[], Estimate | None] = lambda: None,
        new: Sequence[SweepPointRow] | None = None,
    ) -> None:
        self.home, self.sweep, self.parallel = home, sweep, parallel
        self._later: Callable[[], Estimate | None] | None = later
        self._new = new
        self._points = points
        self._watch = watch
        self._watching = threading.Lock()
        self._workshop = Workshop(home)
        self._store: StateStore
        self._running: list[_Running] = []
        self._ended: queue.SimpleQueue[_Running] = queue.SimpleQueue()

    def run(self) -> SweepRow:
        """Run the points in threads, and wait for them. A point that fails does not stop the others.

        Raises:
            HomeLocked: another process holds the home's lock.
            StoreError: the home cannot be used any more, as on a full disk.
            Interrupted: it was stopped. It can be resumed, as after any error.
        """
        with self._workshop.kept() as renew, open_store(self.home) as store:
            self._store = store
            if self._new is not None:
                store.sweeps.create(self.sweep, self._new)
            started = {"status": "running", "error": None, "stop_requested": False, "process": this_process()}
            store.sweeps.change(self.sweep.name, **started)
            try:
                self._run_points(renew)
            except BaseException as error:
                self._end_running()
                self._record_end(error)
                if isinstance(error, KeyboardInterrupt):
                    raise self._interrupted() from None
                raise
            store.sweeps.change(self.sweep.name, status="finished")
            return store.sweeps.get(self.sweep.name)

    def _run_points(self, renew: Callable[[], None]) -> None:
        kind, waiting = "", self._points.take()
        while waiting is not None or self._running:
            can_share = waiting is not None and (kind_of(waiting) == kind or not self._running)
            if waiting is None or not can_share or len(self._running) >= self.parallel:
                self._wait()
                waiting = waiting or self._points.take()
                continue
            if kind_of(waiting) != kind:
                renew()
                kind = kind_of(waiting)
            self._start(waiting)
            waiting = self._points.take()

    def _wait(self) -> None:
        """Until a point has ended."""
        ended = None
        while ended is None:
            if self._store.sweeps.stop_requested(self.sweep.name):
                raise KeyboardInterrupt
            with suppress(queue.Empty):
                ended = self._ended.get(timeout=LOOKS_EVERY_S)
        self._running.remove(ended)
        self._take_note(ended)

    def _start(self, point: SweepPointRow) -> None:
        known = self._session_of(point)
        point = replace(point, status="running", session_id=known.session_id if known else None, error=None)
        if known is None:
            config = config_from_json(point.config)
            body = functools.partial(beginning.run, config, self.home)
            session = Session(self.home, body=body, workshop=self._workshop)
        else:
            session = Session(self.home, session_id=known.session_id, workshop=self._workshop)
        running = _Running(point, session)
        self._record(point)
        session.watch(functools.partial(self._see, running))
        self._running.append(running)
        if known is not None and known.status == "finished":  # the sweep was killed before it took note
            running.row = known
            self._ended.put(running)
            return
        name = f"fedpkg-point-{point.number}"
        running.thread = threading.Thread(target=self._run_one, args=(running, known is not None), name=name)
        running.thread.start()

    def _session_of(self, point: SweepPointRow) -> SessionRow | None:
        """The session of a point that has begun, also if it was killed before the session was noted."""
        if point.session_id is not None:
            return self._store.get_session(point.session_id)
        if point.status == "waiting":
            return None
        name = session_name(self.sweep.name, point.number)
        found = [row for row in self._store.list_sessions() if row.name == name]
        return next((row for row in found if row.created_at >= self.sweep.created_at), None)

    def _run_one(self, running: _Running, is_known: bool) -> None:
        try:
            running.row = (running.session.resume() if is_known else running.session.start()).join()
        except BaseException as error:  # `_take_note` handles it in the thread of the sweep
            running.error = error
        self._ended.put(running)

    def _see(self, running: _Running, event: Event) -> None:
        if isinstance(event, SessionStarted):
            with running.lock:
                if running.point.status == "running":
                    running.point = replace(running.point, session_id=event.session.session_id)
                    self._store.sweeps.record_point(running.point)
        if isinstance(event, RoundFinished) and self._points.saw(running.point, event) and not running.is_pruned:
            running.is_pruned = True
            running.session.stop()
        with self._watching:
            self._watch(running.point, event)

    def _take_note(self, running: _Running) -> None:
        """Record how a point has ended. Raises what ends the whole sweep."""
        error = running.error
        with running.lock:
            point = replace(running.point, session_id=running.session.id or None)
            if error is None:
                point = replace(point, status="finished")
            elif isinstance(error, Interrupted) and running.is_pruned:
                point = replace(point, status="pruned")
            elif ends_sweep(error):
                raise error
            else:
                if not isinstance(error, FedpkgError):
                    logger.error("point.failed sweep=%s point=%d", self.sweep.name, point.number, exc_info=error)
                said = str(error) if isinstance(error, FedpkgError) else f"{type(error).__name__}: {error}"
                point = replace(point, status="failed", error=said)
            running.point = point
        self._record(point)
        noted = self._points.ended(point, running.row)
        if noted != point:
            self._record(noted)
        if point.status == "finished" and self._later is not None:
            later, self._later = self._later, None
            self._tell(noted, later())

    def _tell(self, point: SweepPointRow, needed: Estimate | None) -> None:
        if needed is not None:
            told = Estimated(disk_bytes=needed.disk_bytes, num_tasks=needed.num_tasks, seconds=needed.seconds)
            with self._watching:
                self._watch(point, told)

    def _record(self, point: SweepPointRow) -> None:
        self._store.sweeps.record_point(point)
        with self._watching:
            self._watch(point, None)

    def _end_running(self) -> None:
        """Stop the points that run. They stay ``running`` in the store, and are resumed in their rounds."""
        threads = [one.thread for one in self._running if one.thread is not None and one.thread.ident is not None]
        while any(thread.is_alive() for thread in threads):
            for running in self._running:  # again and again: one may only just begin
                running.session.stop()
            for thread in threads:
                thread.join(LOOKS_EVERY_S)
        for running in self._running:
            if running.row is not None and running.row.status == "finished":
                self._record(replace(running.point, status="finished", session_id=running.session.id))

    def _record_end(self, error: BaseException) -> None:
        """The status of the sweep; on a full disk, it may stay as it was."""
        is_stopped = isinstance(error, (KeyboardInterrupt, Interrupted))
        status = "interrupted" if is_stopped else "failed"
        try:
            self._store.sweeps.change(self.sweep.name, status=status, error=None if is_stopped else str(error))
        except StoreError as also:
            log_event(logger, logging.WARNING, "sweep.not_recorded", sweep=self.sweep.name, error=also.message)

    def _interrupted(self) -> Interrupted:
        counts = self._store.sweeps.counts(self.sweep.name)
        done = counts.get("finished", 0) + counts.get("pruned", 0)
        return Interrupted(
            f"interrupted: {done} of {sum(counts.values())} points of sweep {self.sweep.name} are finished",
            hint=f"fedpkg experiment resume {self.sweep.name}",
            sweep=self.sweep.name,
        )


def ends_sweep(error: BaseException) -> bool:
    """Whether an error of one point would be that of all others: the home cannot be used, or its disk is full."""
    if isinstance(error, StoreError):
        return not isinstance(error, NotFound)
    return isinstance(error, OSError) and error.errno in NO_SPACE
