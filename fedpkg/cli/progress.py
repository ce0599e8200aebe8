"""What is seen of a running session: a live line on a terminal, plain lines elsewhere, JSON lines for programs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fedpkg.cli import output
from fedpkg.cli.foot import Foot, overall
from fedpkg.cli.memory import share_one_arena
from fedpkg.cli.report import (
    calls_text,
    examples_text,
    failure_lines,
    final_report,
    headline,
    rounds_done,
    rounds_table,
    strategy_numbers,
)
from fedpkg.controller.events import (
    Estimated,
    Event,
    PhaseStarted,
    Preparing,
    RoundFinished,
    RoundsAnnounced,
    SessionEnded,
    SessionStarted,
    TaskEnded,
    Waiting,
    Warming,
)
from fedpkg.errors import FedpkgError
from fedpkg.session.estimate import Estimate
from fedpkg.shown import shown
from fedpkg.stores.models import ModelStore
from fedpkg.stores.opening import open_store

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType

    from fedpkg.cli.options import Settings
    from fedpkg.controller.events import Watcher
    from fedpkg.stores.base import ModelRow, RoundRow, SessionRow
    from fedpkg.stores.home import Home
    from fedpkg.waist.answer import Answer
    from fedpkg.waist.order import Order

# Of a round, the usual share of each phase; measurements around training are shown as its begin and end.
_SHARES = {"before_training": (0.0, 0.0), "train": (0.0, 0.8), "after_training": (0.8, 0.8), "validate": (0.8, 1.0)}
SHOWN_FAILURES = 5  # of one phase; the store has them all


@contextmanager
def follow(settings: Settings, home: Home, *, num_rounds: int) -> Iterator[Watcher]:
    """Show a session while it runs inside the block, and at the end its rounds, its model and how to look further."""
    share_one_arena()
    progress = Progress(settings.command, home, num_rounds)
    try:
        with displayed(JsonLines(progress) if settings.json else display_of(progress)) as watch:
            yield watch
    except FedpkgError:
        if progress.session is not None and not settings.json:
            with open_store(home, read_only=True) as store:
                if rounds_done(store, progress.session.session_id):
                    rounds_table(store, progress.session.session_id)
        raise
    if progress.session is not None:
        with open_store(home, read_only=True) as store:
            if not settings.json:
                final_report(settings, home, store, progress.session)
            if progress.session.status == "finished":
                from fedpkg.controller.session import check_any_answered

                check_any_answered(store, progress.session.session_id)


def display_of(progress: Progress) -> PlainLines:
    """Lines that move, on a terminal and in a notebook that can show them; plain lines elsewhere."""
    return LiveDisplay(progress) if sys.stderr.isatty() or _is_notebook() else PlainLines(progress)


def _is_notebook() -> bool:
    from importlib.util import find_spec

    if "ipykernel" not in sys.modules or find_spec("ipywidgets") is None:  # rich shows moving lines by a widget
        return False
    from rich.console import Console

    return Console().is_jupyter


@contextmanager
def displayed(display: Display) -> Iterator[Watcher]:
    """A watcher that has a display show what happens, until the block is left.

    Raises:
        OSError: the display could not be written, as on a full disk.
    """
    errors: list[OSError] = []

    def watch(event: Event) -> None:
        display.progress.take(event)
        try:
            display.show(event)
        except OSError as error:  # the session goes on, but whoever reads must know that lines are missing
            errors.append(error)

    with display:
        yield watch
    if errors:
        raise errors[0]


def _phase_of(order: Order) -> str:
    """The phase of a round to which a task belongs: measurements beside the validation have it in their request."""
    name = order.request_id
    if name is None or name == "$server":
        return "validate"
    return name[1:] if name.startswith("$") else "train"


class Progress:
    """Where the session stands, as its events tell."""

    def __init__(self, command: Callable[[str], str], home: Home, num_rounds: int) -> None:
        self.command = command  # a fedpkg command to suggest, for the same home
        self.home = home.root
        self.models = ModelStore(home.models)
        self.num_rounds = num_rounds
        self.session: SessionRow | None = None
        self.first_round = 1
        self.round_number = 0
        self.phase = ""
        self.num_clients = 0  # of the phase; one that is asked again counts again
        self.awaits: Waiting | None = None
        self.batch = 1  # of a round's requests, of which nobody knows how many will come
        self.ok = 0
        self.failed = 0
        self.metric: str | None = None
        self.finished: list[float] = []  # when each round of this run ended
        self.started = 0.0
        self.preparing = "the package"
        self.is_warming = False
        self.since = time.monotonic()  # it does what it does now

    def take(self, event: Event) -> None:
        if isinstance(event, Preparing):
            self.preparing, self.since = event.what, time.monotonic()
        elif isinstance(event, Warming):
            self.is_warming = event.is_warming
        elif isinstance(event, SessionStarted):
            self.session, self.first_round = event.session, event.first_round
            self.started = time.monotonic()
        elif isinstance(event, RoundsAnnounced):
            self.num_rounds = event.num_rounds
        elif isinstance(event, PhaseStarted):
            self._begin(event.round_number, event.phase, event.batch)
            self.num_clients += event.num_clients
        elif isinstance(event, Waiting):
            if event.round_number != self.round_number:
                self._begin(event.round_number, "train", 1)
            self.awaits, self.since = event if event.num_requests else None, time.monotonic()
        elif isinstance(event, TaskEnded) and self._is_of_phase(event.order):
            self.ok += event.answer.status == "ok"
            self.failed += event.answer.status == "failed"
        elif isinstance(event, RoundFinished):
            self.metric = headline(event.round) or self.metric
            self.finished.append(time.monotonic())
        elif isinstance(event, SessionEnded):
            self.session = event.session

    def _begin(self, round_number: int, phase: str, batch: int) -> None:
        self.round_number, self.phase, self.batch, self.awaits = round_number, phase, batch, None
        self.since = time.monotonic()
        if batch == 1:
            self.num_clients = self.ok = self.failed = 0

    def _is_of_phase(self, order: Order) -> bool:
        """Tasks of outstanding requests may end in a later phase or round."""
        return order.round_number == self.round_number and _phase_of(order) == self.phase

    @property
    def waits_for(self) -> str:
        """What the session does now, as far as no task tells of it; nothing while tasks end one after the other."""
        took = f"  {time.monotonic() - self.since:.0f} s"
        if self.session is None:
            warms = self.is_warming and self.preparing.startswith("the package builds")
            return f"{self.preparing}{', warming the interpreter' * warms}{took}"
        if self.phase and self.ok + self.failed == 0 and self.is_warming:
            return f"warming the interpreter{took}"
        if self.awaits is not None:
            number, outstanding = self.awaits.num_requests, self.awaits.num_outstanding
            return f"waiting for {min(number, outstanding)} of {outstanding} outstanding requests{took}"
        if self.phase == "train" and self.batch == 1 and 0 < self.num_clients <= self.ok + self.failed:
            return "aggregating"
        return ""

    @property
    def share_done(self) -> float:
        """Of all rounds, those of earlier runs included."""
        before = max(0, self.first_round - 1) + len(self.finished)
        within = 0.0
        if self.phase and before < self.round_number and self.num_clients:
            within = min(1.0, (self.ok + self.failed) / self.num_clients) if self.batch == 1 else 1.0
            begin, end = _SHARES.get(self.phase, _SHARES["validate"])
            within = begin + (end - begin) * within
        return min(1.0, (before + within) / self.num_rounds) if self.num_rounds else 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds to go, from the rounds done so far."""
        if not self.finished or not self.num_rounds:
            return None
        a_round = (self.finished[-1] - self.started) / len(self.finished)
        return max(0.0, a_round * self.num_rounds * (1 - self.share_done))


class Display:
    """What a session looks like while it runs; entered before its first event, and left after its last."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def show(self, event: Event) -> None:
        raise NotImplementedError

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None: ...


class PlainLines(Display):
    """One line a round on standard error, and a few for each client that fails."""

    failures = 0  # of this phase, drop-outs left out

    def say(self, text: str) -> None:
        output.words(text)

    def show(self, event: Event) -> None:
        progress = self.progress
        if isinstance(event, Estimated):
            self.say(f"{Estimate(event.disk_bytes, event.num_tasks, event.seconds)}")
        elif isinstance(event, SessionStarted):
            self.say(_beginning(event, progress.num_rounds))
        elif isinstance(event, PhaseStarted):
            self.failures = 0 if event.batch == 1 else self.failures
        elif isinstance(event, TaskEnded) and event.answer.status == "failed":
            if event.answer.failure is None or event.answer.failure.kind != "dropout":  # as it was ordered
                self._failure(event.order, event.answer)
        elif isinstance(event, RoundFinished):
            self.say(_round_line(event.round, progress.num_rounds))

    def _failure(self, order: Order, answer: Answer) -> None:
        session = self.progress.session
        assert session is not None
        self.failures += 1
        if self.failures <= SHOWN_FAILURES:
            lines = failure_lines(
                f"{order.client_id}, round {order.round_number}" if order.round_number else "for all clients",
                answer.failure.message if answer.failure else "",
                package=session.config["package"],
                entry_point=order.entry_point,
                folder=self.progress.home / answer.folder if answer.folder else None,
                arguments=order.arguments,
                log_tail=answer.log_tail,
                isolated=order.isolation is not None,
            )
            self.say("\n".join(lines))
        elif self.failures == SHOWN_FAILURES + 1:
            words = f"session show {session.session_id} --round {order.round_number}"
            command = self.progress.command(words)
            self.say(f"  more clients fail; all of them: {command}")


class LiveDisplay(PlainLines):
    """Lines at the foot of the terminal that move; failures scroll by above them."""

    def __init__(self, progress: Progress) -> None:
        from rich.spinner import Spinner

        super().__init__(progress)
        self._spinner = Spinner("dots")
        self._foot = Foot(self._render)

    def __enter__(self) -> LiveDisplay:
        self._foot.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._foot.__exit__()

    def say(self, text: str) -> None:
        self._foot.say(text)

    def show(self, event: Event) -> None:
        if isinstance(event, Preparing):
            self._foot.refresh()  # it may be over before the next one
        if not isinstance(
            event, (SessionStarted, RoundFinished)
        ):  # the moving lines and the table at the end have these
            super().show(event)

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        progress = self.progress
        if progress.session is None:
            self._spinner.text = Text(f"starting: {progress.waits_for}")
            return self._spinner
        count = f"round {_of(max(progress.round_number, progress.first_round), progress.num_rounds)}"
        share = progress.share_done if progress.num_rounds else None
        top = overall(progress.session.session_id, count, share, progress.left_s)
        line = Text(progress.phase.replace("_", " ") or "begin")
        if progress.num_clients:
            what = "clients" if progress.batch == 1 else "calls"
            line.append(f": {progress.ok + progress.failed} of {progress.num_clients} {what}")
            line.append(f"  {progress.failed} failed", style="red" if progress.failed else "dim")
        if waits_for := progress.waits_for:
            line.append(f"  {waits_for}", style="dim")
        if progress.metric is not None:
            line.append(f"  {progress.metric}", style="green")
        self._spinner.text = line
        return Group(top, self._spinner)


class JsonLines(Display):
    """One JSON object a line on standard output."""

    def show(self, event: Event) -> None:
        if isinstance(event, Estimated):
            output.event_line(
                event="estimated", disk_bytes=event.disk_bytes, num_tasks=event.num_tasks, seconds=event.seconds
            )
        elif isinstance(event, SessionStarted):
            output.event_line(
                event="session_started",
                session_id=event.session.session_id,
                num_clients=event.num_clients,
                first_round=event.first_round,
                num_rounds=self.progress.num_rounds,
            )
        elif isinstance(event, PhaseStarted):
            output.event_line(
                event="phase_started",
                round_number=event.round_number,
                phase=event.phase,
                num_clients=event.num_clients,
                batch=event.batch,
            )
        elif isinstance(event, TaskEnded) and event.answer.status == "failed":
            output.event_line(event="task_failed", **_failed_task(event.order, event.answer, self.progress.home))
        elif isinstance(event, RoundFinished):
            facts = None if (model := event.model) is None else self._facts(model)
            output.event_line(event="round_finished", **asdict(event.round), model=facts)
        elif isinstance(event, SessionEnded):
            session = event.session
            output.event_line(
                event="session_ended", session_id=session.session_id, status=session.status, error=session.error
            )

    def _facts(self, model: ModelRow) -> dict[str, Any]:
        path = self.progress.models.path(model.digest, model.suffix)
        return {"model_id": model.model_id, "digest": model.digest, "path": path, "size_bytes": model.size_bytes}


def _failed_task(order: Order, answer: Answer, home: Path) -> dict[str, Any]:
    return {
        "round_number": order.round_number,
        "client_id": order.client_id,
        "entry_point": order.entry_point,
        "failure": answer.failure.kind if answer.failure else None,
        "message": answer.failure.message if answer.failure else None,
        "exit_code": answer.exit_code,
        "signal": answer.signal,
        "seconds": answer.wall_s,
        "folder": home / answer.folder if answer.folder else None,
        "log_tail": answer.log_tail,
    }


def _beginning(event: SessionStarted, num_rounds: int) -> str:
    clients = f"{event.num_clients} client{'s' * (event.num_clients != 1)}"
    if not num_rounds:
        rounds = f", from round {event.first_round}" if event.first_round > 1 else ""
        return f"session {event.session.session_id}: {clients}{rounds}"
    if event.first_round > num_rounds:
        return f"session {event.session.session_id}: all {num_rounds} rounds are done already"
    rounds = f"rounds {event.first_round} to {num_rounds}" if num_rounds > event.first_round else f"round {num_rounds}"
    return f"session {event.session.session_id}: {clients}, {rounds}"


def _of(round_number: int, num_rounds: int) -> str:
    """The number of a round, out of those to come if their number is known."""
    return f"{round_number}/{num_rounds}" if round_number <= num_rounds else str(round_number)


def _round_line(row: RoundRow, num_rounds: int) -> str:
    parts = [
        f"round {_of(row.round_number, num_rounds)}",
        calls_text(row),
    ]
    if examples := examples_text(row):
        parts.append(f"{examples} examples")
    if metric := headline(row):
        parts.append(metric)
    parts += [f"{shown(name)} {output.number(value)}" for name, value in strategy_numbers(row).items()]
    return "  ".join([*parts, output.seconds(row.wall_s)])
