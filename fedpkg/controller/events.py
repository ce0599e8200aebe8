"""Events of a running session for its watchers. Events are data, without tensors, files or live objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from fedpkg.stores.base import CombinerRow, MetricRow, ModelRow, RequestRow, RoundRow, SessionRow
from fedpkg.waist.answer import Answer
from fedpkg.waist.order import Order


def _name(struct: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in struct).removeprefix("_")


class Event(msgspec.Struct, frozen=True, tag_field="event", tag=_name):
    """An event. A `Session` sets ``session_id`` and ``time`` when it passes the event to its watchers.

    Args:
        session_id: empty until the session is in the store.
        time: seconds since the epoch.
    """

    session_id: str = ""
    time: float = 0.0

    def at(self, session_id: str, time: float) -> Event:
        """The event with a session id and a time."""
        return msgspec.structs.replace(self, session_id=session_id, time=time)


class Preparing(Event, frozen=True, kw_only=True):
    """A step of preparation before the session starts or is resumed; ``what`` describes it."""

    what: str


class Warming(Event, frozen=True, kw_only=True):
    """Tasks start, or stop, waiting for an interpreter that runs its imports."""

    is_warming: bool


class Estimated(Event, frozen=True, kw_only=True):
    """Before a large session starts: about how much disk space and time it needs (``seconds`` None: not known)."""

    disk_bytes: int
    num_tasks: int
    seconds: float | None


class SessionStarted(Event, frozen=True, kw_only=True):
    """The session starts, or is resumed with ``first_round`` above 1; ``num_rounds`` is the total number of rounds (0:
    it is not known).
    """

    session: SessionRow
    num_clients: int
    first_round: int
    num_rounds: int


class RoundsAnnounced(Event, frozen=True, kw_only=True):
    """The strategy of a session with any number of rounds says how many it will probably take."""

    num_rounds: int


class PhaseStarted(Event, frozen=True, kw_only=True):
    """A round starts to ``train`` or ``validate`` with ``num_clients`` clients, or sends its ``batch``-th requests."""

    round_number: int
    phase: str
    num_clients: int
    batch: int = 1


class Waiting(Event, frozen=True, kw_only=True):
    """A round waits until ``num_requests`` outstanding requests have arrived; 0: it no longer waits."""

    round_number: int
    num_requests: int
    num_outstanding: int


class RequestAsked(Event, frozen=True, kw_only=True):
    """A request of the strategy is on record. A resumed round sends it again, and uses the answers on record."""

    request: RequestRow


class TaskStarted(Event, frozen=True, kw_only=True):
    """The executor has the order, which runs as soon as a slot is free."""

    order: Order


class TaskEnded(Event, frozen=True, kw_only=True):
    """The answer to an order has arrived; it is recorded with the next batch."""

    order: Order
    answer: Answer


class CombinerReported(Event, frozen=True, kw_only=True):
    """A combiner of a tree has passed its model upward, or has failed. ``combiner`` is what it did in the round so far.
    It is not on record before the round is; a resumed round reports again.
    """

    combiner: CombinerRow


class RoundFinished(Event, frozen=True, kw_only=True):
    """A round is finished; ``metrics`` are the aggregates of the clients' metrics, by phase, cluster and metric (those
    over all clients have an empty ``cluster``); ``combiners``:
    what those of a tree did.
    """

    round: RoundRow
    model: ModelRow | None
    metrics: list[MetricRow] = []
    combiners: list[CombinerRow] = []


class SessionEnded(Event, frozen=True, kw_only=True):
    session: SessionRow


Watcher: TypeAlias = "Callable[[Event], None]"


def encode(event: Event) -> bytes:
    """One line of JSON, without the newline; ``event`` is the event's name. Numbers that are not finite are null.

    Orders contain the clients' arguments and environment: treat the lines as confidential if these are.
    """
    return msgspec.json.encode(event)
