"""What a running session tells those who watch it. Events are data: they hold no tensor, file or live object."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from fedpkg.stores.base import ModelRow, RequestRow, RoundRow, SessionRow
from fedpkg.waist.answer import Answer
from fedpkg.waist.order import Order


def _name(struct: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in struct).removeprefix("_")


class Event(msgspec.Struct, frozen=True, tag_field="event", tag=_name):
    """Something that happened. A `Session` sets ``session_id`` and ``time`` when it hands the event to its watchers.

    Args:
        session_id: empty as long as the session is not on record.
        time: seconds since the epoch.
    """

    session_id: str = ""
    time: float = 0.0

    def at(self, session_id: str, time: float) -> Event:
        """The event, of that session and time."""
        return msgspec.structs.replace(self, session_id=session_id, time=time)


class Preparing(Event, frozen=True, kw_only=True):
    """Before the session starts or goes on: what is done now, in words."""

    what: str


class Warming(Event, frozen=True, kw_only=True):
    """From now on tasks wait for an interpreter that does its imports, or no longer do."""

    is_warming: bool


class SessionStarted(Event, frozen=True, kw_only=True):
    """``first_round`` is above 1 when a session resumes; ``num_rounds`` are all that it shall have in the end."""

    session: SessionRow
    num_clients: int
    first_round: int
    num_rounds: int


class PhaseStarted(Event, frozen=True, kw_only=True):
    """A round begins to ``train`` or to ``validate``, with so many clients; or asks more, as its ``batch``-th."""

    round_number: int
    phase: str
    num_clients: int
    batch: int = 1


class Waiting(Event, frozen=True, kw_only=True):
    """A round waits until ``num_requests`` outstanding requests have arrived; with 0 it no longer waits."""

    round_number: int
    num_requests: int
    num_outstanding: int


class RequestAsked(Event, frozen=True, kw_only=True):
    """The strategy's question to clients is on record. A resumed round asks again, and finds answers on record."""

    request: RequestRow


class TaskStarted(Event, frozen=True, kw_only=True):
    """The executor has the order; it runs as soon as there is a slot for it."""

    order: Order


class TaskEnded(Event, frozen=True, kw_only=True):
    """The answer to an order has come, and goes on record with the next batch."""

    order: Order
    answer: Answer


class RoundFinished(Event, frozen=True, kw_only=True):
    round: RoundRow
    model: ModelRow | None


class SessionEnded(Event, frozen=True, kw_only=True):
    session: SessionRow


Watcher: TypeAlias = "Callable[[Event], None]"


def encode(event: Event) -> bytes:
    """One line of JSON, without the newline; ``event`` says which one it is. Numbers that are not finite are null.

    Orders have the clients' arguments and environment in them: keep the lines where these may be seen.
    """
    return msgspec.json.encode(event)
