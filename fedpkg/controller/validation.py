"""Validation: the clients' metrics of a round's model, and their averages."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from fedpkg.controller.asked import Asked, Desk, desk_of
from fedpkg.controller.choosing import Choosing
from fedpkg.controller.context import SessionContext
from fedpkg.controller.events import PhaseStarted, RequestAsked
from fedpkg.controller.lanes import Lanes
from fedpkg.controller.ledger import ValidationLedger
from fedpkg.controller.metric_rows import metric_rows
from fedpkg.controller.metrics import average
from fedpkg.controller.orders import Payloads
from fedpkg.stores.base import (
    HELD_OUT,
    ClientRow,
    ClientUpdate,
    MetricPhase,
    MetricRow,
    ModelRow,
    RequestRow,
    ValidationRow,
)
from fedpkg.strategies.base import Request
from fedpkg.types import Json, ReplyKind

VALIDATE: Final = "validate"


@dataclass(frozen=True)
class Validation:
    """The result of a validation.

    Args:
        rows: each client's metrics and their weight.
        clients: tokens of the clients' states afterwards, and the numbers of examples they last trained on.
        metrics: averages by name.
        averages: facts about the averages, by group of clients.
        metric_rows: the aggregates of each metric over the clients.
        dropped: tokens of states that are not kept, by client.
    """

    rows: Sequence[ValidationRow] = ()
    clients: Mapping[str, ClientUpdate] = field(default_factory=dict)
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    averages: Mapping[str, dict[str, Json]] = field(default_factory=dict)
    metric_rows: Sequence[MetricRow] = ()
    dropped: Mapping[str, str | None] = field(default_factory=dict)


def validate(
    ctx: SessionContext, lanes: Lanes, round_number: int, model: ModelRow, *, aside: frozenset[str]
) -> Validation:
    """Let clients validate a round's global model; held-out clients are averaged separately.

    No client drops out, none is required, and no virtual time passes.

    Args:
        aside: clients with outstanding requests. They validate at the same time, from their last recorded state, and
            the resulting state is dropped.
    """
    ledger = ValidationLedger(ctx, round_number, model.model_id)
    lanes.begin(ctx.store.list_clients(ctx.session.session_id))
    desk = desk_of(ctx, lanes, round_number, ledger, Payloads(ctx, round_number, None, model))
    desk.aside = aside
    _ask(desk, ledger)
    # In the order of the clients, so that the average does not depend on the order of arrival.
    rows = [ledger.found[client_id] for client_id in desk.clients if client_id in ledger.found]
    among = _weighted(ctx, desk.clients, [one for one in rows if one.client_id not in ctx.held_out])
    apart = _weighted(ctx, desk.clients, [one for one in rows if one.client_id in ctx.held_out])
    metrics, about = _average(among)
    averages = {VALIDATE: about}
    if apart:
        held_out, averages["held_out"] = _average(apart)
        metrics |= {f"{HELD_OUT}{name}": value for name, value in held_out.items()}
    left = {
        name: (token, desk.clients[name].last_num_examples)
        for name, token in ledger.states.items()
        if name not in aside
    }
    dropped = {name: token for name, token in ledger.states.items() if name in aside}
    aggregates = [*_aggregates(among, VALIDATE), *_aggregates(apart, "held_out")]
    return Validation(among + apart, left, metrics, averages, aggregates, dropped)


def _ask(desk: Desk, ledger: ValidationLedger) -> None:
    """Ask the clients that have not answered yet, and wait until each has answered or failed."""
    ctx = desk.ctx
    chosen = Choosing(ctx, desk.round_number, list(desk.clients.values())).to_validate()
    ctx.watch(PhaseStarted(round_number=desk.round_number, phase=VALIDATE, num_clients=len(chosen)))
    left = [client.client_id for client in chosen if client.client_id not in ledger.found]
    request = Request(
        payload=None,  # type: ignore[arg-type]  # its file alone is sent
        entry_point=VALIDATE,
        reply_kind=ReplyKind.METRICS,
        required=0,
    )
    row = RequestRow(
        session_id=ctx.session.session_id,
        round_number=desk.round_number,
        request_id="",
        number=1,
        entry_point=VALIDATE,
        reply_kind=ReplyKind.METRICS.value,
        cohort=left,
        target=len(left),
        started_at=ctx.clock(),
    )
    asked = Asked(desk, request, row)
    ctx.watch(RequestAsked(request=row))
    desk.set_deadline()
    desk.lanes.enter(asked.turns())
    asked.finish()


def _weighted(
    ctx: SessionContext, clients: Mapping[str, ClientRow], validations: Sequence[ValidationRow]
) -> list[ValidationRow]:
    """The validations of one average, each with its weight."""
    weights = ctx.weights_of_metrics(
        [clients[one.client_id] for one in validations], [(one.weight, one.weight_source) for one in validations]
    )
    return [
        dataclasses.replace(one, weight=weight, weight_source=source)
        for one, (weight, source) in zip(validations, weights, strict=True)
    ]


def _average(validations: Sequence[ValidationRow]) -> tuple[dict[str, float | None], dict[str, Json]]:
    found = average((one.metrics, (one.weight, one.weight_source)) for one in validations)
    return found.values, found.about


def _aggregates(validations: Sequence[ValidationRow], phase: MetricPhase) -> list[MetricRow]:
    if not validations:
        return []
    replies = [(one.metrics, (one.weight, one.weight_source)) for one in validations]
    first = validations[0]
    return metric_rows(replies, session_id=first.session_id, round_number=first.round_number, phase=phase)
