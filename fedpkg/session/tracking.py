"""The trackers of a running session, each with a queue and a thread of its own."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpkg.config import RunConfig, dump_config
from fedpkg.controller.events import Event, RoundFinished, SessionEnded, SessionStarted
from fedpkg.controller.metric_rows import all_metric_rows
from fedpkg.reporting.stored_config import without_secrets
from fedpkg.session.watchers import PATIENCE_S, Line
from fedpkg.stores.base import MetricRow, ModelRow, SessionRow
from fedpkg.stores.models import ModelStore
from fedpkg.tracking.base import TrackedRound, TrackedRun
from fedpkg.tracking.follower import Follower
from fedpkg.tracking.registry import ALWAYS, make_tracker

if TYPE_CHECKING:
    from fedpkg.controller.events import Watcher
    from fedpkg.stores.home import Home
    from fedpkg.stores.sql import StateStore


@contextmanager
def tracked(
    session: SessionRow, config: RunConfig, *, home: Home, store: StateStore, watch: Watcher
) -> Iterator[Watcher]:
    """A watcher for the events of the session: it passes them on to ``watch``, and those of rounds to the trackers."""
    tracking = _Tracking(session, config, home, store)

    def watching(event: Event) -> None:
        tracking.put(event)
        watch(event)

    try:
        yield watching
    finally:
        tracking.close()


class _Tracking:
    def __init__(self, session: SessionRow, config: RunConfig, home: Home, store: StateStore) -> None:
        self._store = store
        self._has_tree = config.topology is not None
        self._session_id = session.session_id
        self._models = ModelStore(home.models)
        self._run = TrackedRun(
            session_id=session.session_id,
            name=session.name,
            folder=home.session_folder(session.session_id),
            config=without_secrets(dump_config(config)),
            num_rounds=config.rounds or 0,
            sweep=self._sweep,
        )
        sections: list[Mapping[str, Any]] = [{"name": ALWAYS}, *config.tracking]  # type: ignore[list-item]
        followers = [Follower(section["name"], functools.partial(make_tracker, section)) for section in sections]
        self._feeds = [_Feed(follower, self._run, self._models) for follower in followers]
        self._lines = [Line(feed) for feed in self._feeds]

    def put(self, event: Event) -> None:
        """Queue an event for all trackers, if it concerns them."""
        if isinstance(event, SessionStarted) and event.first_round > 1:
            past = list(self._past())
            for feed in self._feeds:
                feed.past = past
        if isinstance(event, (SessionStarted, RoundFinished, SessionEnded)):
            for line in self._lines:
                line.put(event)

    def close(self) -> None:
        """Wait until the trackers have got all rounds; for one that hangs, no longer than ten seconds."""
        for line in self._lines:
            line.finish()
        for line in self._lines:
            line.join(PATIENCE_S)

    def _past(self) -> Iterator[TrackedRound]:
        """The rounds that were finished before the session was resumed."""
        store, found = self._store, dict[int, list[MetricRow]]()
        for one in all_metric_rows(store, self._session_id, clusters=True):
            found.setdefault(one.round_number, []).append(one)
        models = {model.round_number: model for model in store.list_models(self._session_id)}
        for row in store.list_rounds(self._session_id, status="finished"):
            number = row.round_number
            combiners = store.list_combiners(row.session_id, round_number=number) if self._has_tree else ()
            yield TrackedRound(row, found.get(number, ()), _file_of(self._models, models.get(number)), combiners)

    def _sweep(self) -> tuple[str, Mapping[str, Any]] | None:
        point = self._store.sweeps.point_of(self._session_id)
        return None if point is None else (point.sweep, without_secrets(point.choices))


class _Feed:
    """Gives the events of a session to a follower, in the thread of its tracker."""

    def __init__(self, follower: Follower, run: TrackedRun, models: ModelStore) -> None:
        self._follower = follower
        self._run = run
        self._models = models
        self.past: Sequence[TrackedRound] = ()

    def __repr__(self) -> str:
        return repr(self._follower)

    def __call__(self, event: Event) -> None:
        if isinstance(event, SessionStarted):
            self._follower.begin(self._run, self.past)
        elif isinstance(event, RoundFinished):
            model = _file_of(self._models, event.model)
            self._follower.round(TrackedRound(event.round, event.metrics, model, event.combiners))
        elif isinstance(event, SessionEnded):
            self._follower.end(event.session.status)


def _file_of(models: ModelStore, row: ModelRow | None) -> Path | None:
    return None if row is None or row.pruned is not None else models.path(row.digest, row.suffix)
