"""What clients reported, whole: the JSON of validations and of replies to train, and one client's values by round."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from fedpkg.api.asking import Limit, Ref, RoundNumber, Skip, Text, question
from fedpkg.api.metrics import Axis, Curves
from fedpkg.api.opening import Opened, Page, Struct
from fedpkg.controller.metrics import finite_number
from fedpkg.errors import NotFound
from fedpkg.stores.base import ValidationRow

Phase: TypeAlias = Literal["validate", "held_out", "server", "before_training", "after_training"]
ClientIds: TypeAlias = Annotated[list[Text], msgspec.Meta(min_length=1, max_length=100)]


class Validation(Struct, frozen=True, kw_only=True):
    """What one client measured of one model; ``metrics`` is the JSON that its entry point wrote."""

    task_id: str
    round_number: int
    client_id: str
    model_id: str
    phase: str
    weight: float
    weight_source: str
    metrics: Any


class Report(Struct, frozen=True, kw_only=True):
    """What one client reported with its reply; ``metadata`` is the JSON that its entry point wrote."""

    task_id: str
    round_number: int
    client_id: str
    entry_point: str
    num_examples: float
    size_bytes: int
    metadata: Any


class Line(Struct, frozen=True, kw_only=True):
    """One client's value of a metric by round; null: it is not finite."""

    client_id: str
    rounds: list[int]
    x: list[float]
    values: list[float | None]


class Lines(Struct, frozen=True, kw_only=True):
    session_id: str
    phase: str
    metric: str
    axis: str
    lines: list[Line]


@question
def list_validations(
    at: Opened,
    ref: Ref,
    *,
    round_number: RoundNumber | None = None,
    client_id: Text | None = None,
    phase: Phase | None = None,
) -> Iterator[Validation]:
    """All validations of a session that match, by round; the list is sent bit by bit, however long it is.

    Damaged rows are left out.
    """
    session_id = at.session(ref).session_id
    rows = at.overview.each_validation(session_id, round_number=round_number, client_id=client_id, phase=phase)
    return (_validation(row) for row in rows if isinstance(row, ValidationRow))


@question
def get_validation(at: Opened, task_id: Text) -> Validation:
    """One validation by the id of its task. Raises NotFound."""
    read = at.overview.validation(task_id)
    if not read.rows:
        raise NotFound("; ".join(read.problems) or f"there is no validation {task_id!r:.200}")
    return _validation(read.rows[0])


def _validation(row: ValidationRow) -> Validation:
    return Validation(
        task_id=row.task_id,
        round_number=row.round_number,
        client_id=row.client_id,
        model_id=row.model_id,
        phase=row.phase,
        weight=row.weight,
        weight_source=row.weight_source,
        metrics=row.metrics,
    )


@question
def list_reports(
    at: Opened, ref: Ref, round_number: RoundNumber, *, skip: Skip = 0, limit: Limit = 100
) -> Page[Report]:
    """What the clients reported with their replies in a round, by client."""
    session_id = at.session(ref).session_id
    total, read = at.overview.reports(session_id, round_number=round_number, limit=limit, skip=skip)
    items = [Report(**row._asdict()) for row in read.rows]
    return Page(total=total, skip=skip, items=items, notes=at.notes(read))


@question
def client_lines(
    at: Opened, ref: Ref, metric: Text, clients: ClientIds, *, phase: Text = "", axis: Axis = "round"
) -> Lines:
    """One metric of some clients by round, to draw behind the mean.

    Args:
        clients: ids of at most 100 clients.
        phase: none: the first of the phases that has the metric.

    Raises:
        NotFound: the session has no such metric.
    """
    curves = Curves(at, ref)
    session_id = curves.session.session_id
    chosen, _ = curves.rows(metric, phase)
    x = curves.x(axis)
    found: dict[str, dict[int, float | None]] = {client_id: {} for client_id in clients}
    for client_id, number, value in _values_of(at, session_id, list(found), chosen, metric):
        found[client_id][number] = value
    lines = []
    for client_id, values in found.items():
        rounds = [one for one in values if one in x]
        lines.append(
            Line(
                client_id=client_id,
                rounds=rounds,
                x=[x[one] for one in rounds],
                values=[values[one] for one in rounds],
            )
        )
    return Lines(session_id=session_id, phase=chosen, metric=metric, axis=axis, lines=lines)


def _values_of(
    at: Opened, session_id: str, clients: list[str], phase: str, metric: str
) -> Iterator[tuple[str, int, float | None]]:
    """Client, round and value, by round; a phase of the strategy has no clients."""
    told: Iterator[tuple[str, int, Any]] = iter(())
    if phase == "train":
        reports = at.overview.each_report(session_id, clients=clients)
        told = ((row.client_id, row.round_number, row.metadata) for row in reports)
    elif phase != "strategy":
        told = at.overview.validations_of_clients(session_id, clients, phase, keys=first_keys(metric))
    for client_id, number, tree in told:
        if (value := value_at(tree, metric)) is not None:
            yield client_id, number, finite_number(value)


def first_keys(name: str) -> list[str]:
    """The keys of a tree's root that `value_at` looks for."""
    parts = name.split(".")
    return [".".join(parts[:number]) for number in range(1, len(parts) + 1)]


def value_at(tree: Any, name: str) -> Any:
    """The value in a tree of JSON that a name such as ``per_class.3`` leads to; None: there is none."""
    if isinstance(tree, Mapping):
        if name in tree:
            return tree[name]
        parts = name.split(".")
        for number in range(1, len(parts)):
            key = ".".join(parts[:number])
            if key in tree and (found := value_at(tree[key], ".".join(parts[number:]))) is not None:
                return found
    elif isinstance(tree, list):
        place, _, rest = name.partition(".")
        if place.isdecimal() and len(place) < 10 and int(place) < len(tree):
            inner = tree[int(place)]
            return value_at(inner, rest) if rest else inner
    return None
