"""Trackers of one's own, found by module:class: one that works, one that fails, one that hangs."""

from __future__ import annotations

import threading

from fedpkg.tracking import TrackedRound, TrackedRun

CALLS: list[tuple[str, object]] = []
RELEASE = threading.Event()


class _Noting:
    def begin(self, run: TrackedRun) -> None:
        CALLS.append(("begin", run.num_tracked))

    def round(self, finished: TrackedRound) -> None:
        CALLS.append(("round", finished.number))

    def end(self, status: str) -> None:
        CALLS.append(("end", status))


class Noting(_Noting):
    """Notes what it is given."""


class Failing(_Noting):
    """Fails in the first rounds, or always."""

    def __init__(self, until: int = 99, where: str = "round") -> None:
        self._until, self._where, self._times = until, where, 0

    def begin(self, run: TrackedRun) -> None:
        self._fail("begin")
        super().begin(run)

    def round(self, finished: TrackedRound) -> None:
        self._fail("round")
        super().round(finished)

    def end(self, status: str) -> None:
        self._fail("end")
        super().end(status)

    def _fail(self, where: str) -> None:
        self._times += 1
        if where == self._where and self._times < self._until:
            raise SystemExit("the server is down")


class Hanging(_Noting):
    """Hangs in its first round."""

    def round(self, finished: TrackedRound) -> None:
        RELEASE.wait()
