"""What is seen of a running sweep: one display for all its points."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedpkg.cli import output
from fedpkg.cli.foot import Foot, overall
from fedpkg.cli.memory import share_one_arena
from fedpkg.cli.report import headline
from fedpkg.controller.events import Estimated, Event, RoundFinished, RoundsAnnounced, SessionStarted
from fedpkg.session.estimate import Estimate
from fedpkg.shown import shown
from fedpkg.stores.base import SweepPointRow

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fedpkg.experiments.starting import Planned

_ENDED = ("finished", "failed", "pruned")


@dataclass
class _Point:
    """Where a running point stands."""

    row: SweepPointRow
    started: float
    round_number: int = 0
    num_rounds: int = 1
    metric: str | None = None


class SweepProgress:
    """Where a sweep stands, as its points tell. Its methods are called by one thread at a time."""

    def __init__(self) -> None:
        self.planned: Planned | None = None
        self.running: dict[int, _Point] = {}
        self.statuses: dict[int, str] = {}
        self.started = time.monotonic()
        self._done_before = 0.0

    def begin(self, planned: Planned) -> None:
        self.planned = planned
        self.statuses = {point.number: point.status for point in planned.points}
        self.started, self._done_before = time.monotonic(), self.share_done

    def take(self, row: SweepPointRow, event: Event | None) -> _Point | None:
        """Take note; the point, if it has just ended."""
        here = self.running.setdefault(row.number, _Point(row, time.monotonic()))
        here.row = row
        if isinstance(event, SessionStarted):
            here.num_rounds, here.round_number = event.num_rounds, event.first_round - 1
        elif isinstance(event, RoundsAnnounced):
            here.num_rounds = event.num_rounds
        elif isinstance(event, RoundFinished):
            here.round_number, here.metric = event.round.round_number, headline(event.round) or here.metric
        elif event is None:
            has_ended = self.statuses.get(row.number) == "running" and row.status in _ENDED
            self.statuses[row.number] = row.status
            if row.status in _ENDED:
                self.running.pop(row.number)
                return here if has_ended else None
        if self.statuses.get(row.number) in _ENDED:  # a last event of a session that has ended
            self.running.pop(row.number, None)
        return None

    @property
    def num_points(self) -> int:
        if self.planned is None:
            return 0
        return max(len(self.statuses), self.planned.sweep.options.get("number") or 0)

    @property
    def num_ended(self) -> int:
        return sum(status in _ENDED for status in self.statuses.values())

    @property
    def share_done(self) -> float:
        within = sum(min(1.0, one.round_number / max(1, one.num_rounds)) for one in self.running.values())
        return min(1.0, (self.num_ended + within) / max(1, self.num_points))

    @property
    def left_s(self) -> float | None:
        """Seconds to go, from what has been done in this run."""
        done = self.share_done - self._done_before
        return (time.monotonic() - self.started) * (1 - self.share_done) / done if done > 0.01 else None


def choices_text(choices: Mapping[str, Any]) -> str:
    """``lr=0.01 method=fedavg``; numbers with at most four digits that count."""
    from fedpkg.experiments.results import value_text

    return " ".join(
        f"{key}={f'{value:.4g}' if isinstance(value, float) else value_text(value)}" for key, value in choices.items()
    )


class PlainSweep:
    """One line on standard error for each point that has ended."""

    def __init__(self, progress: SweepProgress) -> None:
        self.progress = progress

    def __enter__(self) -> PlainSweep:
        return self

    def __exit__(self, *_: object) -> None: ...

    def say(self, text: str) -> None:
        output.words(text)

    def watch(self, row: SweepPointRow, event: Event | None) -> None:
        if isinstance(event, Estimated) and not event.session_id:
            self.say(f"  left: {Estimate(event.disk_bytes, event.num_tasks, event.seconds)}")
        elif (ended := self.progress.take(row, event)) is not None:
            self.say(self._line(ended))

    def _line(self, ended: _Point) -> str:
        row = ended.row
        parts = [f"{self.progress.num_ended} of {self.progress.num_points}", f"point {row.number}"]
        parts += [row.baseline] * bool(row.baseline) + [shown(choices_text(row.choices))]
        if row.status != "finished":
            parts.append(row.status)
        if ended.metric:
            parts.append(ended.metric)
        parts.append(output.seconds(time.monotonic() - ended.started))
        line = "  ".join(part for part in parts if part)
        return line if not row.error else f"{line}\n    {shown(row.error.splitlines()[0])}"


class LiveSweep(PlainSweep):
    """Lines at the foot of the terminal that move: the whole sweep, and each point that runs."""

    def __init__(self, progress: SweepProgress) -> None:
        super().__init__(progress)
        self._foot = Foot(self._render)

    def __enter__(self) -> LiveSweep:
        self._foot.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._foot.__exit__()

    def say(self, text: str) -> None:
        self._foot.say(text)

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        progress, planned = self.progress, self.progress.planned
        count = f"{progress.num_ended} of {progress.num_points} points"
        top = overall(planned.sweep.name if planned else "", count, progress.share_done, progress.left_s)
        rows = Table.grid(padding=(0, 2))
        for one in list(progress.running.values()):
            words = " ".join(part for part in (one.row.baseline, choices_text(one.row.choices)) if part)
            of = f"/{one.num_rounds}" if one.num_rounds else ""
            where = f"round {one.round_number}{of}" if one.round_number else "begins"
            rows.add_row(f"point {one.row.number}", Text(shown(words)), where, Text(one.metric or "", style="green"))
        return Group(top, rows)


class JsonSweep(PlainSweep):
    """One JSON object a line on standard output: whenever a point changes, and for each round."""

    def watch(self, row: SweepPointRow, event: Event | None) -> None:
        if isinstance(event, Estimated) and not event.session_id:
            needs = {"disk_bytes": event.disk_bytes, "num_tasks": event.num_tasks, "seconds": event.seconds}
            output.event_line(event="estimated", sweep=row.sweep, **needs)
            return
        self.progress.take(row, event)
        facts = point_facts(row)
        if event is None:
            output.event_line(event="point", **facts)
        elif isinstance(event, RoundFinished):
            metrics = event.round.metrics or event.round.train_metrics
            facts = {"sweep": row.sweep, "number": row.number, "session_id": event.session_id}
            output.event_line(event="round_finished", **facts, round_number=event.round.round_number, metrics=metrics)


def point_facts(row: SweepPointRow) -> dict[str, Any]:
    """A point for programs; its configuration is that of its session."""
    keys = ("sweep", "number", "choices", "baseline", "status", "session_id", "value", "error")
    return {key: getattr(row, key) for key in keys}


@contextmanager
def following(*, as_json: bool = False) -> Iterator[PlainSweep]:
    """A display, shown during the block. Call its ``watch`` with the sweep's events."""
    share_one_arena()
    progress = SweepProgress()
    kind = JsonSweep if as_json else LiveSweep if sys.stderr.isatty() else PlainSweep
    with kind(progress) as display:
        yield display
