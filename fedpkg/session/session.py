"""A session as an object: it is started, stopped, waited for and resumed, and what is on record of it is read."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from fedpkg.config import RunConfig
from fedpkg.controller.events import Event, SessionEnded, SessionStarted, Watcher
from fedpkg.errors import NotFound, SessionError
from fedpkg.session import beginning, resuming
from fedpkg.session.control import Control, interrupted
from fedpkg.session.record import find_session, open_home, running_sessions, status_of
from fedpkg.session.watchers import Watchers, telling_of_warmth
from fedpkg.session.workshop import Workshop
from fedpkg.stores.base import ModelRow, RoundRow, SessionRow
from fedpkg.stores.home import Home
from fedpkg.stores.models import ModelStore
from fedpkg.stores.opening import open_store
from fedpkg.stores.sql import StateStore

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fedpkg.weights.weights import Weights

_Read = TypeVar("_Read")
_Body: TypeAlias = "Callable[[Watcher, Control, Workshop], SessionRow]"


def prepare(config: RunConfig, home: Home, *, beside: Session | None = None) -> Session:
    """A new session, not started. What is wrong with its configuration is found when it runs.

    Args:
        beside: of the same home: the two can run at the same time, on the slots of one executor. Their sections
            ``executor``, ``environment`` and ``isolate`` must be alike.

    Raises:
        SessionError: ``beside`` is in another home.
    """
    if beside is not None and beside.home.root != home.root:
        raise SessionError(f"sessions that share an executor have one home, not {home.root} and {beside.home.root}")
    workshop = None if beside is None else beside.workshop
    return Session(home, body=functools.partial(beginning.run, config, home), workshop=workshop)


class Session:
    """One session: prepared, running in a thread of its own, or on record.

    Args:
        home: where it is kept.
        session_id: of one that is on record.
        body: runs it, in the thread that calls; None: there is nothing to start.
        workshop: where it runs; None: one of its own.
    """

    def __init__(
        self, home: Home, *, session_id: str = "", body: _Body | None = None, workshop: Workshop | None = None
    ) -> None:
        self.home = home
        self._id = session_id
        self._body = body
        self.workshop = workshop or Workshop(home)
        self._watchers: list[Watcher] = []
        self._control = Control()
        self._thread: threading.Thread | None = None
        self._row: SessionRow | None = None
        self._error: BaseException | None = None

    @classmethod
    def open(cls, home: Home | Path | str | None = None, ref: str | None = None) -> Session:
        """A session that is on record in a home (see `fedpkg.prepare`): an id or its beginning; None is the newest.

        Raises:
            NotFound: there is no such home or session.
        """
        home = open_home(home, create=False)
        with open_store(home, read_only=True) as store:
            return cls(home, session_id=find_session(store, ref).session_id)

    def __repr__(self) -> str:
        return f"Session({self._id or 'not begun'}, {self.status})"

    # ---- running

    def watch(self, watcher: Watcher) -> Watcher:
        """Have a function called with each event of the session, in a thread of its own, from the next start on.

        An exception in it is logged once. When it is slow, events of single tasks are dropped (see `Watchers`).
        """
        self._watchers.append(watcher)
        return watcher

    def start(self) -> Session:
        """Run a prepared session in a thread of its own; returns at once.

        Raises:
            SessionError: it runs already, or has run: `resume` goes on with it.
        """
        body = self._begin()
        self._thread = threading.Thread(target=self._run_to_join, args=(body,), name="fedpkg-session")
        self._thread.start()
        return self

    def resume(self, rounds: int | None = None) -> Session:
        """Go on with a session that is on record, in a thread of its own; with ``rounds``, up to that many in all.

        Raises:
            SessionError: it runs, or is not on record.
        """
        return self._to_resume(rounds).start()

    def run(self) -> SessionRow:
        """Run a prepared session in this thread; Ctrl-C stops it.

        Raises:
            FedpkgError: what stopped it. Once it is on record it can be resumed.
        """
        return self._run(self._begin())

    def run_again(self, rounds: int | None = None) -> SessionRow:
        """`resume`, in this thread."""
        return self._to_resume(rounds).run()

    def stop(self) -> None:
        """End it as Ctrl-C does: tasks in flight end, what was committed is kept, and it can be resumed.

        `join` then raises Interrupted. Nothing happens to a session that does not run. The folding of a round
        is not interrupted.
        """
        self._control.stop()

    def join(self, timeout_s: float | None = None) -> SessionRow:
        """Wait for its end; its row. By then its watchers have had all events.

        Ctrl-C while waiting stops the session.

        Raises:
            FedpkgError: what stopped it.
            TimeoutError: it still runs after ``timeout_s``.
        """
        if self._thread is None and self._row is None:
            raise SessionError(f"{self!r} was not started: there is nothing to wait for")
        try:
            self._wait(timeout_s)
        except KeyboardInterrupt:
            self.stop()
            self._wait(None)
        if self._error is not None:
            raise self._error
        assert self._row is not None
        return self._row

    def _wait(self, timeout_s: float | None) -> None:
        if self._thread is not None:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                raise TimeoutError(f"session {self._id or 'that begins'} still runs after {timeout_s} s")

    @property
    def is_running(self) -> bool:
        """Whether this object runs it; for whether any process does, see `status`."""
        return self._thread is not None and self._thread.is_alive()

    def _to_resume(self, rounds: int | None) -> Session:
        if not self._id:
            raise SessionError("this session is not on record: it cannot be resumed", hint="start it")
        if self.is_running:
            raise SessionError(f"session {self._id} runs", hint="wait for its end with join()")
        self._body = functools.partial(resuming.resume, self._id, self.home, rounds=rounds)
        return self

    def _begin(self) -> _Body:
        if self._body is None:
            raise SessionError(
                f"session {self._id} was started already" if self._id else "this session was started already",
                hint="resume() goes on with a session that is on record",
            )
        body, self._body = self._body, None
        self._control, self._row, self._error = Control(), None, None
        return body

    def _run_to_join(self, body: _Body) -> None:
        try:
            self._row = self._run(body)
        except KeyboardInterrupt:
            self._error = interrupted(self._id)
        except BaseException as error:  # it is raised by join
            self._error = error

    def _run(self, body: _Body) -> SessionRow:
        watchers, control = Watchers(self._watchers), self._control

        def put(event: Event) -> None:
            watchers.put(event.at(self._id, time.time()))

        def tell(event: Event) -> None:
            if isinstance(event, SessionStarted):
                self._id = event.session.session_id
            put(event)
            if not isinstance(event, SessionEnded):
                control.check()

        try:
            with telling_of_warmth(control, put):
                self._row = body(tell, control, self.workshop)
        finally:
            watchers.close()
        return self._row

    # ---- what is on record

    @property
    def id(self) -> str:
        """Its id; empty as long as it is not on record."""
        return self._id

    @property
    def row(self) -> SessionRow:
        """Its row in the store.

        Raises:
            SessionError: it is not on record.
        """
        return self._read(lambda store: store.get_session(self._id))

    @property
    def status(self) -> str:
        """``prepared``, ``running``, ``finished``, ``stopped``, ``interrupted``, ``failed``, or ``killed``."""
        return status_of(self.row, running_sessions(self.home)) if self._id else "prepared"

    @property
    def rounds(self) -> list[RoundRow]:
        """Its rounds, as they are on record."""
        return list(self._read(lambda store: store.list_rounds(self._id)))

    def metrics(self) -> list[dict[str, Any]]:
        """For each finished round its number and metrics, those of training as ``train_<name>``: rows of a table.

        ``pandas.DataFrame(session.metrics())`` is that table.
        """
        return [
            {
                "round": row.round_number,
                **{f"train_{name}": value for name, value in row.train_metrics.items()},
                **row.strategy_metrics,
                **row.metrics,
            }
            for row in self.rounds
            if row.status == "finished"
        ]

    @property
    def models(self) -> list[ModelRow]:
        """Its global models, from the seed model (round 0) on."""
        return list(self._read(lambda store: store.list_models(self._id)))

    def model(self, round_number: int | None = None) -> Weights:
        """The global model of a round; None is the newest. It is mapped from the store: `clone` it to change it.

        Raises:
            NotFound: there is none, or it was removed.
        """
        from fedpkg.formats.model_file import read_model
        from fedpkg.weights.weights import Weights

        rows = {row.round_number: row for row in self.models}
        row = rows.get(max(rows, default=0) if round_number is None else round_number)
        if row is None:
            what = f"model of round {round_number}; it has {sorted(rows)}" if rows else "model: its strategy keeps none"
            raise NotFound(f"session {self._id} has no {what}")
        if row.pruned is not None:
            raise NotFound(f"model {row.model_id} was removed ({row.pruned})")
        return Weights(read_model(ModelStore(self.home.models).path(row.digest, row.suffix)), buffers=row.buffers)

    def plot(self, *names: str) -> Figure:
        """A matplotlib figure of these metrics by round (a notebook shows it); without names, of all that are numbers.

        Raises:
            SessionError: matplotlib is not installed, or no round has metrics.
            NotFound: no round has a metric of that name.
        """
        from fedpkg.session.notebook import plot

        return plot(self._id, self.metrics(), names)

    def _repr_html_(self) -> str:
        """What a notebook shows of it: its status, and its metrics by round."""
        from fedpkg.session.notebook import as_html

        return as_html(self._id, self.status, self.metrics() if self._id else [])

    def _read(self, question: Callable[[StateStore], _Read]) -> _Read:
        if not self._id:
            raise SessionError("this session is not on record yet", hint="start it, or run it")
        with open_store(self.home, read_only=True) as store:
            return question(store)
