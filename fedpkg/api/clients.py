"""Clients: of a session, and one client's history over all sessions of the home."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import msgspec

from fedpkg.api.asking import Limit, Order, Ref, Skip, Text, page, question
from fedpkg.api.opening import Opened, Struct
from fedpkg.api.sessions import strategy_name
from fedpkg.errors import FedpkgError, NotFound, nearest
from fedpkg.session.record import status_of
from fedpkg.stores.overview import ClientFacts, ClientSums
from fedpkg.types import Attribute

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedpkg.data.entities import Entities
    from fedpkg.stores.base import SessionRow

RECENT_ROUNDS = 5
Recent: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Sort: TypeAlias = Literal[
    "position", "client_id", "state", "times_asked", "times_counted", "num_failed", "num_examples", "last_seen",
    "seconds", "bytes_down", "bytes_up",
]  # fmt: skip


class Client(Struct, frozen=True, kw_only=True):
    """A client of a session.

    ``state``: ``in flight`` (it was asked in the current round, and has not answered), ``failing`` (its last task of
    the recent rounds failed), ``ok``, ``quiet`` (not asked in the recent rounds) or ``never asked``. ``calls``,
    ``seconds`` and bytes sum the tasks of the recent rounds; ``num_failed`` counts all failures of the session.
    """

    client_id: str
    position: int
    state: str
    cluster: str | None
    attributes: dict[str, Attribute]
    num_examples: float | None
    times_asked: int
    last_asked: int | None
    times_counted: int
    last_counted: int | None
    num_failed: int
    last_seen: float | None
    calls: int
    seconds: float
    bytes_down: int
    bytes_up: int
    train_metrics: dict[str, float | None]
    validation_metrics: dict[str, float | None]


class ClientPage(Struct, frozen=True, kw_only=True):
    """A part of a session's clients; sums are over the rounds from ``recent_from`` to ``recent_to``."""

    total: int
    skip: int
    recent_from: int
    recent_to: int
    states: dict[str, int]
    items: list[Client]
    notes: tuple[str, ...] = ()


@question
def list_clients(
    at: Opened,
    ref: Ref,
    *,
    search: Text = "",
    state: Text = "",
    sort: Sort = "position",
    order: Order = "asc",
    recent: Recent = RECENT_ROUNDS,
    skip: Skip = 0,
    limit: Limit = 100,
) -> ClientPage:
    """The clients of a session.

    Args:
        search: words, each of which must occur in the id or in an attribute, in any case.
        recent: the number of rounds over which calls, seconds and bytes are summed.
    """
    words = search.casefold().split()
    session = at.session(ref)
    read = at.overview.clients(session.session_id)
    notes = list(at.notes(read))
    found, (first, last) = _clients(at, session, read.rows, recent, notes)
    states: dict[str, int] = {}
    for one in found:
        states[one.state] = states.get(one.state, 0) + 1
    found = [one for one in found if state in ("", one.state) and all(word in _words_of(one) for word in words)]
    found.sort(key=lambda one: _sort_key(getattr(one, sort)), reverse=order == "desc")
    part = page(found, skip=skip, limit=limit)
    return ClientPage(
        total=part.total,
        skip=skip,
        recent_from=first,
        recent_to=last,
        states=states,
        items=part.items,
        notes=tuple(notes),
    )


class Past(Struct, frozen=True, kw_only=True):
    """What a client did in one session."""

    session_id: str
    session_status: str
    created_at: float
    strategy: str
    num_examples: float | None
    times_asked: int
    times_counted: int
    num_failed: int
    train_metrics: dict[str, float | None]
    validation_metrics: dict[str, float | None]


@question
def get_client(at: Opened, ref: Ref, client_id: Text, *, recent: Recent = RECENT_ROUNDS) -> Client:
    """One client of a session. Raises NotFound."""
    session = at.session(ref)
    read = at.overview.clients(session.session_id, client_id=client_id)
    if read.rows:
        return _clients(at, session, read.rows, recent, [], client_id=client_id)[0][0]
    known = [one.client_id for one in at.overview.clients(session.session_id).rows]
    raise NotFound(
        f"session {session.session_id} has no client {client_id!r:.200}{nearest(client_id, known)}",
        hint="; ".join(at.notes(read)) or None,
    )


@question
def client_history(at: Opened, client_id: Text, *, limit: Limit = 100) -> list[Past]:
    """A client's part in the sessions of the home, newest first; sessions whose row is damaged are left out.

    Raises:
        NotFound: no session has such a client.
    """
    running, found = at.running(), []
    sessions = {one.session_id: one for one in at.overview.sessions().rows}
    for session_id in at.overview.sessions_of_client(client_id)[:limit]:
        if (session := sessions.get(session_id)) is None:
            continue
        for one in at.overview.clients(session_id, client_id=client_id).rows:
            found.append(
                Past(
                    session_id=session_id,
                    session_status=status_of(session, running),
                    created_at=session.created_at,
                    strategy=strategy_name(session.config),
                    num_examples=one.num_examples if one.last_num_examples is None else one.last_num_examples,
                    times_asked=one.times_asked,
                    times_counted=one.times_counted,
                    num_failed=at.overview.count("tasks", session_id, client_id=client_id, status="failed"),
                    train_metrics=one.train_metrics,
                    validation_metrics=one.validation_metrics,
                )
            )
    if not found:
        raise NotFound(f"no session of the home has a client {client_id!r:.200}")
    return found


def _words_of(one: Client) -> str:
    return " ".join([one.client_id, *(f"{name}={value}" for name, value in one.attributes.items())]).casefold()


def _sort_key(value: object) -> tuple[bool, object]:
    return value is not None, value.casefold() if isinstance(value, str) else value


def _clients(
    at: Opened,
    session: SessionRow,
    rows: list[ClientFacts],
    recent: int,
    notes: list[str],
    *,
    client_id: str | None = None,
) -> tuple[list[Client], tuple[int, int]]:
    session_id = session.session_id
    last = at.overview.round_sums_of(session_id).last_round
    first = max(0, last - recent)
    sums = at.overview.client_sums(session_id, after_round=first, client_id=client_id)
    failures = at.overview.failure_counts(session_id, client_id=client_id)
    flying = in_flight(at, session, last)
    clusters = at.store.list_cluster_clients(session_id)
    entities = entities_or_none(at, session, notes)
    nothing = ClientSums()
    made = [
        Client(
            client_id=one.client_id,
            position=one.position,
            state=_state(one, sums.get(one.client_id), one.client_id in flying),
            cluster=clusters.get(one.client_id),
            attributes=dict(attributes_of(entities, one.client_id)),
            num_examples=one.num_examples if one.last_num_examples is None else one.last_num_examples,
            times_asked=one.times_asked,
            last_asked=one.last_asked,
            times_counted=one.times_counted,
            last_counted=one.last_counted,
            num_failed=failures.get(one.client_id, 0),
            last_seen=told.last_seen,
            calls=told.calls,
            seconds=told.seconds,
            bytes_down=told.bytes_down,
            bytes_up=told.bytes_up,
            train_metrics=one.train_metrics,
            validation_metrics=one.validation_metrics,
        )
        for one, told in ((one, sums.get(one.client_id, nothing)) for one in rows)
    ]
    return made, (first + 1, last)


def _state(one: ClientFacts, sums: ClientSums | None, is_flying: bool) -> str:
    if is_flying:
        return "in flight"
    if sums is None:
        return "quiet" if one.times_asked else "never asked"
    return "failing" if sums.is_failing else "ok"


def in_flight(at: Opened, session: SessionRow, round_number: int) -> dict[str, tuple[str, str | None]]:
    """Of a running session, the clients that the round has asked and that have not answered: the entry point of each,
    and its request.
    """
    if status_of(session, at.running()) != "running" or round_number == 0:
        return {}
    session_id = session.session_id
    asked = [one for one in at.store.list_requests(session_id, round_number=round_number) if one.status == "asked"]
    if not asked:
        return {}
    ended = {(client, request) for client, _, request in at.overview.tasks_of_round(session_id, round_number)}
    return {
        client: (one.entry_point, one.request_id)
        for one in asked
        for client in one.cohort
        if (client, one.request_id) not in ended
    }


def entities_or_none(at: Opened, session: SessionRow, notes: list[str]) -> Entities | None:
    """The entities that a session names; None: it names none, or the file is gone, which becomes a note."""
    from fedpkg.config_reading import config_from_json  # takes long, and few ask
    from fedpkg.data.entities import entities_of

    path = (session.config.get("clients") or {}).get("entities")
    if not path:
        return None
    try:
        return entities_of(config_from_json(session.config).clients)
    except (FedpkgError, OSError):
        notes.append(f"the attributes of the clients cannot be read from {at.shown_path(str(path))}")
        return None


def attributes_of(entities: Entities | None, client_id: str) -> Mapping[str, Attribute]:
    return {} if entities is None or client_id not in entities else entities.attributes_of(client_id)
