"""Validation: the clients' metrics of a round's model, and their averages."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fedpkg.controller.asked import Asked, Desk, desk_of
from fedpkg.controller.choosing import Choosing
from fedpkg.controller.clusters import Clusters
from fedpkg.controller.context import SessionContext
from fedpkg.controller.events import PhaseStarted
from fedpkg.controller.lanes import Lanes
from fedpkg.controller.ledger import ValidationLedger
from fedpkg.controller.measuring import VALIDATE, aggregates, drop_states, enter, enter_each, weighted
from fedpkg.controller.metrics import average
from fedpkg.controller.orders import Payloads
from fedpkg.stores.base import HELD_OUT, ClientRow, ClientUpdate, MetricRow, ModelRow, ValidationRow
from fedpkg.stores.base import SERVER as ON_SERVER
from fedpkg.types import Json
from fedpkg.waist.order import SERVER


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
        server: the metrics on the server's data.
    """

    rows: Sequence[ValidationRow] = ()
    clients: Mapping[str, ClientUpdate] = field(default_factory=dict)
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    averages: Mapping[str, dict[str, Json]] = field(default_factory=dict)
    metric_rows: Sequence[MetricRow] = ()
    dropped: Mapping[str, str | None] = field(default_factory=dict)
    server: Sequence[ValidationRow] = ()


def validate(
    ctx: SessionContext,
    lanes: Lanes,
    round_number: int,
    model: ModelRow,
    clusters: Clusters,
    *,
    aside: frozenset[str],
) -> Validation:
    """Let each client validate a round's model of its cluster, or the global model if it belongs to none; held-out
    clients are averaged separately.

    No client drops out, none is required, and no virtual time passes.

    Args:
        aside: clients with outstanding requests. They validate at the same time, from their last recorded state, and
            the resulting state is dropped.
    """
    clients, server = ctx.store.list_clients(ctx.session.session_id), server_of(ctx)
    lanes.begin(clients if server is None else [*clients, server])
    ledger = ValidationLedger(ctx, round_number, model.model_id, clusters=clusters)
    desk = desk_of(ctx, lanes, round_number, ledger, Payloads(ctx, round_number, None, model))
    desk.aside = aside
    on_server = _Server(desk, model) if server is not None else None
    _ask(desk, ledger, clusters, on_server)
    # In the order of the clients, so that the average does not depend on the order of arrival.
    rows = [ledger.found[client_id] for client_id in desk.clients if client_id in ledger.found]
    among = weighted(ctx, desk.clients, [one for one in rows if one.client_id not in ctx.held_out])
    apart = weighted(ctx, desk.clients, [one for one in rows if one.client_id in ctx.held_out])
    metrics, about = _average(among)
    averages = {VALIDATE: about}
    if apart:
        held_out, averages["held_out"] = _average(apart)
        metrics |= {f"{HELD_OUT}{name}": value for name, value in held_out.items()}
    of_server = [] if on_server is None else on_server.taken()
    if of_server:
        measured, averages["server"] = _average(of_server)
        metrics |= {f"{ON_SERVER}{name}": value for name, value in measured.items()}
    left = {
        name: (token, desk.clients[name].last_num_examples)
        for name, token in ledger.states.items()
        if name not in aside
    }
    dropped = {name: token for name, token in ledger.states.items() if name in aside}
    found = [*aggregates(among, VALIDATE), *aggregates(apart, "held_out"), *aggregates(of_server, "server")]
    return Validation(among + apart, left, metrics, averages, found, dropped, of_server)


def server_of(ctx: SessionContext) -> ClientRow | None:
    """What stands for the server among the clients, in measurements on its data; None: it has none."""
    if ctx.config.evaluation.server is None:
        return None
    data, position = ctx.config.evaluation.server.data, len(ctx.client_ids)
    return ClientRow(session_id=ctx.session.session_id, client_id=SERVER, position=position, data_path=data)


class _Server:
    """The measurement of a model on the server's data, unless it is on record."""

    def __init__(self, desk: Desk, model: ModelRow) -> None:
        config = desk.ctx.config.evaluation.server
        assert config is not None
        self._entry_point = config.entry_point
        self._ledger = ValidationLedger(desk.ctx, desk.round_number, model.model_id, "server")
        self._desk = dataclasses.replace(desk, ledger=self._ledger, aside=frozenset({SERVER}))

    def enter(self) -> Asked | None:
        if self._ledger.found:
            return None
        return enter(self._desk, [SERVER], phase="server", entry_point=self._entry_point)

    def taken(self) -> list[ValidationRow]:
        """The metrics with their weight; none if the task failed."""
        drop_states(self._desk, self._ledger)
        return weighted(self._desk.ctx, self._desk.clients, list(self._ledger.found.values()))


def _ask(desk: Desk, ledger: ValidationLedger, clusters: Clusters, server: _Server | None) -> None:
    """Ask the clients, and the server, that have not answered yet, and wait until each has answered or failed."""
    ctx, chosen = desk.ctx, []
    if VALIDATE in ctx.spec.entry_points:
        clients = [client for client in desk.clients.values() if client.client_id != SERVER]
        chosen = [one.client_id for one in Choosing(ctx, desk.round_number, clients).to_validate()]
    number = len(chosen) + (server is not None)
    ctx.watch(PhaseStarted(round_number=desk.round_number, phase=VALIDATE, num_clients=number))
    first = None if server is None else server.enter()
    asked = enter_each(desk, [client_id for client_id in chosen if client_id not in ledger.found], clusters)
    for one in asked if first is None else [*asked, first]:
        one.finish()


def _average(validations: Sequence[ValidationRow]) -> tuple[dict[str, float | None], dict[str, Json]]:
    found = average((one.metrics, (one.weight, one.weight_source)) for one in validations)
    return found.values, found.about
