"""The rounds of a session: how many clients, bytes and seconds, and where the time went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fedpkg.api.asking import Limit, Ref, RoundNumber, Skip, page, question
from fedpkg.api.opening import Opened, Page, Struct
from fedpkg.api.sessions import privacy_of
from fedpkg.controller.metrics import finite_number
from fedpkg.errors import NotFound
from fedpkg.session.record import status_of
from fedpkg.stores.overview import RequestSums, RoundFacts

if TYPE_CHECKING:
    from fedpkg.stores.base import SessionRow

_NOT_SECONDS = ("virtual_time",)  # keys among a round's phases that are no parts of its wall time


class Round(Struct, frozen=True, kw_only=True):
    """A round. ``status`` is ``interrupted`` if its session has ended and the round has not.

    ``calls`` counts the clients of all its requests; ``phases`` are the seconds of its parts.
    ``strategy`` has the numbers that the strategy's step reports, ``strategy_more`` what else it reports.
    """

    round_number: int
    status: str
    started_at: float
    finished_at: float | None
    seconds: float | None
    phases: dict[str, float]
    virtual_s: float | None
    num_clients: int
    num_counted: int
    required: int
    requests: int
    calls: int
    num_ok: int
    num_failed: int
    num_examples: float
    bytes_down: int
    bytes_up: int
    model_id: str | None
    error: str | None
    strategy: dict[str, float | None]
    strategy_more: dict[str, Any]
    privacy: dict[str, float]
    weight_source: str | None


class Request(Struct, frozen=True, kw_only=True):
    """A request of the strategy to clients. ``group`` is a group of clients, or the path of a combiner."""

    request_id: str
    number: int
    entry_point: str
    reply_kind: str
    group: str | None
    status: str
    started_at: float
    seconds: float | None
    num_clients: int
    num_counted: int | None
    num_ok: int
    num_failed: int
    bytes_down: int
    bytes_up: int


class RoundDetail(Struct, frozen=True, kw_only=True):
    round: Round
    requests: list[Request]
    tasks: dict[str, dict[str, int]]  # entry point → status → number


@question
def list_rounds(at: Opened, ref: Ref, *, counts: bool = True, skip: Skip = 0, limit: Limit = 1000) -> Page[Round]:
    """The rounds of a session, in order.

    Args:
        counts: also the numbers of clients and calls, which take most of the time; without them, these are 0.
    """
    session = at.session(ref)
    session_id, is_running = session.session_id, _is_running(at, session)
    read = at.overview.rounds(session_id, with_counts=counts)
    requests = at.overview.request_sums(session_id, with_calls=counts)
    found = page(read.rows, skip=skip, limit=limit)
    items = [_round(one, requests.get(one.round_number, RequestSums()), is_running) for one in found.items]
    return Page(total=found.total, skip=skip, items=items, notes=at.notes(read))


@question
def get_round(at: Opened, ref: Ref, round_number: RoundNumber) -> RoundDetail:
    """One round with its requests, and the number of its tasks. Raises NotFound."""
    session = at.session(ref)
    session_id = session.session_id
    read = at.overview.rounds(session_id, after=round_number - 1, before=round_number + 1, with_counts=True)
    if not read.rows:
        told = "; ".join(at.notes(read)) or f"session {session_id} has no round {round_number}"
        raise NotFound(told, hint="the list of rounds has all numbers")
    sums = at.overview.request_sums(session_id).get(round_number, RequestSums())
    tasks: dict[str, dict[str, int]] = {}
    for (entry_point, status), count in at.overview.task_counts(session_id, round_number).items():
        tasks.setdefault(entry_point, {})[status] = count
    requests = [
        Request(
            request_id=one.request_id,
            number=one.number,
            entry_point=one.entry_point,
            reply_kind=one.reply_kind,
            group=one.client_group,
            status=one.status,
            started_at=one.started_at,
            seconds=one.wall_s,
            num_clients=len(one.cohort),
            num_counted=None if one.counted is None else len(one.counted),
            num_ok=one.num_ok,
            num_failed=one.num_failed,
            bytes_down=one.bytes_down,
            bytes_up=one.bytes_up,
        )
        for one in at.store.list_requests(session_id, round_number=round_number)
    ]
    return RoundDetail(round=_round(read.rows[0], sums, _is_running(at, session)), requests=requests, tasks=tasks)


def _is_running(at: Opened, session: SessionRow) -> bool:
    return status_of(session, at.running()) == "running"


def _round(row: RoundFacts, sums: RequestSums, is_running: bool) -> Round:
    numbers, more = _split(row.strategy_metrics)
    validated = row.averages.get("validate")
    return Round(
        round_number=row.round_number,
        status="interrupted" if not is_running and row.status in ("training", "aggregated") else row.status,
        started_at=row.started_at,
        finished_at=row.finished_at,
        seconds=row.wall_s,
        phases={name: value for name, value in row.phases.items() if name not in _NOT_SECONDS},
        virtual_s=row.phases.get("virtual_time"),
        num_clients=row.num_asked,
        num_counted=row.num_counted,
        required=row.target,
        requests=sums.requests,
        calls=sums.calls,
        num_ok=row.num_ok,
        num_failed=row.num_failed,
        num_examples=row.num_examples,
        bytes_down=sums.bytes_down,
        bytes_up=sums.bytes_up,
        model_id=row.model_id,
        error=row.error,
        strategy=numbers,
        strategy_more=more,
        privacy=privacy_of(row.strategy_metrics),
        weight_source=validated.get("weight_source") if isinstance(validated, Mapping) else None,
    )


def _split(told: Mapping[str, Any]) -> tuple[dict[str, float | None], dict[str, Any]]:
    """What a strategy tells: its numbers (None: not finite), and the rest."""
    numbers: dict[str, float | None] = {}
    more: dict[str, Any] = {}
    for name, value in told.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            numbers[name] = finite_number(value)
        else:
            more[name] = value
    return numbers, more
