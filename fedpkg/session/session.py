"""A session as an object: start, stop, resume or wait for it, and read its rounds, metrics and models."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from fedpkg.config import RunConfig
from fedpkg.config_reading import config_from_json
from fedpkg.controller.events import Event, SessionEnded, SessionStarted, Watcher
from fedpkg.errors import NotFound, SessionError
from fedpkg.session import beginning, resuming
from fedpkg.session.configuration import without_digests
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

    from fedpkg.types import Json
    from fedpkg.weights.weights import Weights

_Read = TypeVar("_Read")
_Body: TypeAlias = "Callable[[Watcher, Control, Workshop], SessionRow]"


def prepare(
    config: RunConfig, home: Home, *, beside: Session | None = None, origins: Mapping[str, str] | None = None
) -> Session:
    """A new session, not started yet. Errors in its configuration are found when it runs.

    Args:
        beside: a session of the same home. Both can run at the same time, on the slots of one executor. Their sections
            ``executor``, ``environment`` and ``isolate`` must be equal.
        origins: of the values of the configuration, by key, if it was read from a file.

    Raises:
        SessionError: ``beside`` is in another home.
    """
    if beside is not None and beside.home.root != home.root:
        raise SessionError(f"sessions that share an executor need the same home: {home.root}, {beside.home.root}")
    workshop = None if beside is None else beside.workshop
    return Session(home, body=functools.partial(beginning.run, config, home, origins=origins or {}), workshop=workshop)


class Session:
    """One session: prepared, running in a separate thread, or stored in a home.

    Args:
        home: the home in which it is stored.
        session_id: the id of a stored session.
        body: runs the session in the calling thread; None: there is nothing to start.
        workshop: the workshop in which it runs; None: a separate one.
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
        """Open a stored session by its id or a prefix of it; None is the newest. ``home`` is as in `fedpkg.prepare`.

        Raises:
            NotFound: the home or the session does not exist.
        """
        home = open_home(home, create=False)
        with open_store(home, read_only=True) as store:
            return cls(home, session_id=find_session(store, ref).session_id)

    def __repr__(self) -> str:
        return f"Session({self._id or 'not begun'}, {self.status})"

    # ---- running

    def watch(self, watcher: Watcher) -> Watcher:
        """Call a function with each event of the session, in a separate thread, from the next start on.

        Its first exception is logged. If it is slow, events of single tasks are dropped (see `Watchers`).
        """
        self._watchers.append(watcher)
        return watcher

    def start(self) -> Session:
        """Run a prepared session in a separate thread; returns at once.

        Raises:
            SessionError: it is running, or has run before; then use `resume`.
        """
        body = self._begin()
        self._thread = threading.Thread(target=self._run_to_join, args=(body,), name="fedpkg-session")
        self._thread.start()
        return self

    def resume(self, rounds: int | None = None, *, tracking: Sequence[Json] | None = None) -> Session:
        """Resume a stored session in a separate thread.

        Args:
            rounds: a new total number of rounds.
            tracking: other trackers, as in a run.yaml.

        Raises:
            SessionError: it is running, or not in the store.
        """
        return self._to_resume(rounds, tracking).start()

    def fresh(self) -> Session:
        """A new session with the configuration of this stored one, which starts over; not started yet.

        Raises:
            SessionError: this session is not in the store.
        """
        return prepare(without_digests(config_from_json(self.row.config)), self.home)

    def run(self) -> SessionRow:
        """Run a prepared session in this thread; Ctrl-C stops it.

        Raises:
            FedpkgError: the session failed. Once it is in the store it can be resumed.
        """
        return self._run(self._begin())

    def run_again(self, rounds: int | None = None, *, tracking: Sequence[Json] | None = None) -> SessionRow:
        """`resume`, in this thread."""
        return self._to_resume(rounds, tracking).run()

    def stop(self) -> None:
        """Stop the session, as Ctrl-C does: tasks in flight end, committed rounds are kept, and it can be resumed.

        `join` then raises Interrupted. A session that is not running is left as it is. The aggregation of a round
        is not interrupted.
        """
        self._control.stop()

    def join(self, timeout_s: float | None = None) -> SessionRow:
        """Wait for the session to end; return its row. By then its watchers have received all events.

        Ctrl-C while waiting stops the session.

        Raises:
            FedpkgError: the session failed.
            TimeoutError: it is still running after ``timeout_s``.
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
                raise TimeoutError(f"session {self._id or '(starting)'} is still running after {timeout_s} s")

    @property
    def is_running(self) -> bool:
        """Whether this object is running the session; `status` tells whether any process is."""
        return self._thread is not None and self._thread.is_alive()

    def _to_resume(self, rounds: int | None, tracking: Sequence[Json] | None) -> Session:
        if not self._id:
            raise SessionError("this session is not in the store: it cannot be resumed", hint="start it")
        if self.is_running:
            raise SessionError(f"session {self._id} is running", hint="wait for it with join()")
        self._body = functools.partial(resuming.resume, self._id, self.home, rounds=rounds, tracking=tracking)
        return self

    def _begin(self) -> _Body:
        if self._body is None:
            raise SessionError(
                f"session {self._id} was started already" if self._id else "this session was started already",
                hint="use resume() for a stored session",
            )
        body, self._body = self._body, None
        self._control, self._row, self._error = Control(), None, None
        return body

    def _run_to_join(self, body: _Body) -> None:
        try:
            self._row = self._run(body)
        except KeyboardInterrupt:
            self._error = interrupted(self._id)
        except BaseException as error:  # `join` raises it
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

    # ---- what is stored

    @property
    def id(self) -> str:
        """The session's id; empty until the session is in the store."""
        return self._id

    @property
    def row(self) -> SessionRow:
        """The session's row in the store.

        Raises:
            SessionError: the session is not in the store.
        """
        return self._read(lambda store: store.get_session(self._id))

    @property
    def status(self) -> str:
        """``prepared``, ``running``, ``finished``, ``stopped``, ``interrupted``, ``failed``, or ``killed``."""
        return status_of(self.row, running_sessions(self.home)) if self._id else "prepared"

    @property
    def rounds(self) -> list[RoundRow]:
        """The session's rounds in the store."""
        return list(self._read(lambda store: store.list_rounds(self._id)))

    def clusters(self, round_number: int | None = None) -> dict[str, str]:
        """The path of the cluster to which each client belongs after a round, or now; empty: there is one model."""
        return self._read(lambda store: store.list_cluster_clients(self._id, round_number=round_number))

    def metrics(self) -> list[dict[str, Any]]:
        """A dict for each finished round: its number and metrics; metrics of training are named ``train_<name>``.

        ``pandas.DataFrame(session.metrics())`` makes a table of them.
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
        """The session's global models, from the seed model (round 0) on."""
        return list(self._read(lambda store: store.list_models(self._id)))

    def cluster_models(self, path: str | None = None) -> list[ModelRow]:
        """The models of the session's clusters by round, or those of one cluster.

        Raises:
            NotFound: there is no such cluster.
        """

        def question(store: StateStore) -> list[ModelRow]:
            if path is not None:
                store.get_cluster_model(self._id, path)
            return [row for row in store.list_models(self._id, cluster=path) if row.cluster]

        return self._read(question)

    def model(self, round_number: int | None = None, *, cluster: str = "") -> Weights:
        """The global model after a round; None is the newest. It is memory-mapped: `clone` it before you change it.

        Args:
            cluster: the model of the cluster with this path.

        Raises:
            NotFound: there is no such model or cluster, or it was pruned.
        """
        from fedpkg.formats.model_file import read_model
        from fedpkg.weights.weights import Weights

        row: ModelRow | None
        if cluster:
            row = self._read(lambda store: store.get_cluster_model(self._id, cluster, round_number=round_number))
        else:
            rows = {row.round_number: row for row in self.models}
            row = rows.get(max(rows, default=0) if round_number is None else round_number)
        if row is None:
            what = f"model of round {round_number}; it has {sorted(rows)}" if rows else "model: no round has made one"
            raise NotFound(f"session {self._id} has no {what}")
        if row.pruned is not None:
            raise NotFound(f"model {row.model_id} was pruned ({row.pruned})")
        return Weights(read_model(ModelStore(self.home.models).path(row.digest, row.suffix)), buffers=row.buffers)

    def plot(self, *names: str) -> Figure:
        """A matplotlib figure of these metrics by round; without names, of all numeric metrics.

        Raises:
            ConfigError: matplotlib is not installed.
            SessionError: no round has metrics.
            NotFound: no round has a metric of that name.
        """
        from fedpkg.session.notebook import plot

        return plot(self._id, self.metrics(), names)

    def _repr_html_(self) -> str:
        """The notebook's view of the session: its status, and its metrics by round."""
        from fedpkg.session.notebook import as_html

        return as_html(self._id, self.status, self.metrics() if self._id else [])

    def _read(self, question: Callable[[StateStore], _Read]) -> _Read:
        if not self._id:
            raise SessionError("this session is not in the store yet", hint="call start() or run()")
        with open_store(self.home, read_only=True) as store:
            return question(store)
