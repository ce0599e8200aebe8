"""What a running session tells those who watch it. Events are values; watching changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from fedpkg.stores.base import ModelRow, RoundRow, SessionRow
from fedpkg.waist.answer import Answer
from fedpkg.waist.order import Order


@dataclass(frozen=True)
class Preparing:
    """Before the session starts or goes on: what is done now, in words."""

    what: str


@dataclass(frozen=True)
class ExecutorStarted:
    """Before the session starts or goes on. ``is_warming()``: tasks wait for an interpreter that does its imports."""

    is_warming: Callable[[], bool]


@dataclass(frozen=True)
class SessionStarted:
    session: SessionRow
    num_clients: int
    first_round: int  # above 1 when a session resumes


@dataclass(frozen=True)
class PhaseStarted:
    """A round begins to train, or to validate, with so many clients; or asks some for more, as its ``batch``-th."""

    round_number: int
    phase: str  # train or validate
    num_clients: int
    batch: int = 1


@dataclass(frozen=True)
class TaskEnded:
    order: Order
    answer: Answer


@dataclass(frozen=True)
class RoundFinished:
    round: RoundRow
    model: ModelRow


@dataclass(frozen=True)
class SessionEnded:
    session: SessionRow


Event: TypeAlias = (
    "Preparing | ExecutorStarted | SessionStarted | PhaseStarted | TaskEnded | RoundFinished | SessionEnded"
)
Watcher: TypeAlias = "Callable[[Event], None]"
