"""Feeds one tracker with the events of a session, and remembers across resumptions which rounds it was given."""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedpkg.tracking.base import TrackedRound, TrackedRun, Tracker

logger = logging.getLogger("fedpkg.tracking")
FOLDER = "tracking"  # in the session's folder: a file for each tracker


class Follower:
    """One tracker of a session. Its methods are called in a thread of the tracker's.

    A round that fails is offered again, before the next one. The first failure is logged; none is raised.

    Args:
        name: of the tracker in the run.yaml.
        make: makes the tracker.
    """

    def __init__(self, name: str, make: Callable[[], Tracker]) -> None:
        self.name = name
        self._make = make
        self._tracker: Tracker | None = None
        self._has_begun = False
        self._run: TrackedRun | None = None
        self._pending: deque[TrackedRound] = deque()
        self._has_failed = False

    def __repr__(self) -> str:
        return f"tracker {self.name}"

    def begin(self, run: TrackedRun, past: Iterable[TrackedRound]) -> None:
        """The session starts; ``past`` are the rounds that were finished before."""
        noted = _read(self._file(run.folder))
        self._run = run = replace(run, num_tracked=noted["rounds"], kept=noted["kept"])
        self._pending.extend(one for one in past if one.number > run.num_tracked)
        self._work()

    def round(self, finished: TrackedRound) -> None:
        self._pending.append(finished)
        self._work()

    def end(self, status: str) -> None:
        """The session has ended. What failed is tried once more."""
        self._work()
        tracker = self._tracker
        if self._has_begun and tracker is not None:
            self._guard(lambda: tracker.end(status))

    def _work(self) -> None:
        """Give the tracker all that it has not been given yet."""
        if not self._has_begun and not self._guard(self._begin):
            return
        while self._pending and self._guard(lambda: self._give(self._pending[0])):
            self._pending.popleft()

    def _begin(self) -> None:
        assert self._run is not None
        self._tracker = self._tracker or self._make()
        self._tracker.begin(self._run)
        self._has_begun = True

    def _give(self, finished: TrackedRound) -> None:
        assert self._run is not None and self._tracker is not None
        self._tracker.round(finished)
        _write(self._file(self._run.folder), {"rounds": finished.number, "kept": self._run.kept})

    def _guard(self, work: Callable[[], None]) -> bool:
        """Whether it succeeded; an error is logged once."""
        try:
            work()
        except BaseException as error:  # also SystemExit and the like
            if not self._has_failed:
                self._has_failed = True
                about = f"{type(error).__name__}: {error}; the session goes on without it (logged once)"
                logger.warning("tracker.failed tracker=%s about=%r", self.name, about, exc_info=_for_debugging(error))
            return False
        return True

    def _file(self, folder: Path) -> Path:
        return folder / FOLDER / f"{''.join(c if c.isalnum() else '-' for c in self.name)}.json"


def _for_debugging(error: BaseException) -> BaseException | None:
    return error if logger.isEnabledFor(logging.DEBUG) else None


def _read(path: Path) -> dict[str, Any]:
    try:
        noted = json.loads(path.read_text())
        return {"rounds": int(noted["rounds"]), "kept": dict(noted["kept"])}
    except (OSError, ValueError, KeyError, TypeError):  # a new session, or a power loss: all rounds are given again
        return {"rounds": 0, "kept": {}}


def _write(path: Path, noted: Mapping[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    written = path.with_suffix(".new")
    written.write_text(json.dumps(noted))
    os.replace(written, path)
