"""Tasks that measure a model: their request, their weights and aggregates; and those that leave no state behind.

A measurement beside the clients' validation never affects the session: its tasks start from the client's last state, in
a lane of its own, and the state that they leave is dropped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fedpkg.controller.asked import Asked, Desk, desk_of
from fedpkg.controller.clusters import Clusters
from fedpkg.controller.context import SessionContext
from fedpkg.controller.events import PhaseStarted, RequestAsked
from fedpkg.controller.lanes import Lanes
from fedpkg.controller.ledger import Ledger, ValidationLedger
from fedpkg.controller.metric_rows import metric_rows
from fedpkg.controller.orders import Payloads
from fedpkg.stores.base import ClientRow, MetricPhase, MetricRow, ModelRow, RequestRow, ValidationRow
from fedpkg.strategies.base import Request
from fedpkg.types import ReplyKind
from fedpkg.waist.place import PAYLOAD
from fedpkg.weights.weights import Weights

VALIDATE: Final = "validate"
TRAIN_ENTRY_POINT = "train"
_AT_ONCE = 16  # updates that are written as models for their own clients at the same time


def enter(
    desk: Desk,
    cohort: Sequence[str],
    *,
    phase: MetricPhase = VALIDATE,
    entry_point: str = VALIDATE,
    payload: Weights | None = None,
) -> Asked:
    """Ask these clients to measure a model; none is required to answer, and no client drops out.

    Args:
        payload: None: the model whose file is the desk's.
    """
    request = Request(
        request_id="" if phase == VALIDATE else f"${phase}",
        payload=payload,  # type: ignore[arg-type]  # without one, the model's file alone is sent
        entry_point=entry_point,
        reply_kind=ReplyKind.METRICS,
        required=0,
    )
    row = RequestRow(
        session_id=desk.ctx.session.session_id,
        round_number=desk.round_number,
        request_id=request.request_id,
        number=1,
        entry_point=entry_point,
        reply_kind=ReplyKind.METRICS.value,
        cohort=list(cohort),
        target=len(cohort),
        started_at=desk.ctx.clock(),
    )
    asked = Asked(desk, request, row)
    desk.ctx.watch(RequestAsked(request=row))
    desk.set_deadline()
    desk.lanes.enter(asked.turns())
    return asked


def enter_each(desk: Desk, cohort: Sequence[str], clusters: Clusters, *, phase: MetricPhase = VALIDATE) -> list[Asked]:
    """Ask these clients to measure the models of their clusters; those that belong to none get that of the desk."""
    by_path: dict[str, list[str]] = {}
    for client_id in cohort:
        by_path.setdefault(clusters.paths.get(client_id, ""), []).append(client_id)
    asked = []
    for path, members in (by_path or {"": []}).items():
        at = desk
        if path:
            files = Payloads(desk.ctx, desk.round_number, None, clusters.current[path])
            at = dataclasses.replace(desk, payloads=files)
        asked.append(enter(at, members, phase=phase))
    return asked


def weighted(
    ctx: SessionContext, clients: Mapping[str, ClientRow], validations: Sequence[ValidationRow]
) -> list[ValidationRow]:
    """The rows of one average, each with its weight."""
    weights = ctx.weights_of_metrics(
        [clients[one.client_id] for one in validations], [(one.weight, one.weight_source) for one in validations]
    )
    return [
        dataclasses.replace(one, weight=weight, weight_source=source)
        for one, (weight, source) in zip(validations, weights, strict=True)
    ]


def aggregates(validations: Sequence[ValidationRow], phase: MetricPhase) -> list[MetricRow]:
    """The aggregates of one average, and those of the clients of each cluster among them."""
    if not validations:
        return []
    first, found = validations[0], []
    by_path: dict[str, list[ValidationRow]] = {"": list(validations)}
    for one in validations if phase != "server" else ():
        if one.cluster:
            by_path.setdefault(one.cluster, []).append(one)
    for path in sorted(by_path):
        replies = [(one.metrics, (one.weight, one.weight_source)) for one in by_path[path]]
        number = first.round_number
        found += metric_rows(replies, session_id=first.session_id, round_number=number, phase=phase, cluster=path)
    return found


def drop_states(desk: Desk, ledger: ValidationLedger) -> None:
    """Remove the states that tasks aside have left."""
    session_id = desk.ctx.session.session_id
    for client_id, token in ledger.states.items():
        desk.lanes.states.pop(f"{client_id} aside", None)
        if token is not None:
            desk.ctx.executor.states.discard(session_id, client_id, token)


@dataclass
class AroundTraining:
    """What the clients of one round measure before and after their training.

    Args:
        model: the global model that the clients of the round get.
        clusters: those after the round before, whose models their clients measure before their training.
        ledger: of the round's training, whose tasks are numbered after these.

    Attributes:
        rows: the clients' metrics.
        metric_rows: their aggregates.
    """

    ctx: SessionContext
    lanes: Lanes
    round_number: int
    model: ModelRow
    clusters: Clusters
    ledger: Ledger
    rows: list[ValidationRow] = dataclasses.field(default_factory=list)
    metric_rows: list[MetricRow] = dataclasses.field(default_factory=list)

    def before(self, cohort: Collection[str]) -> None:
        """Let the clients of the cohort validate the global model."""
        desk, ledger = self._desk("before_training", cohort)
        left = [client_id for client_id in cohort if client_id not in ledger.found]
        self._tell(desk, "before_training", len(left))
        for one in enter_each(desk, left, self.clusters, phase="before_training"):
            one.finish()
        self._take(desk, ledger, "before_training", cohort)

    def after(self, requests: Sequence[Asked], model: Weights) -> None:
        """Let the clients whose updates count validate these. Of several updates of one client, the last one counts."""
        updates = {
            came.client_id: (asked, came)
            for asked in requests
            if asked.request.entry_point == TRAIN_ENTRY_POINT
            and asked.request.reply_kind is ReplyKind.UPDATE
            and asked.request.reply != "gradient"
            for came in asked.usable
        }
        desk, ledger = self._desk("after_training", updates)
        left = [client_id for client_id in updates if client_id not in ledger.found]
        self._tell(desk, "after_training", len(left))
        for start in range(0, len(left), _AT_ONCE):
            several = []
            for client_id in left[start : start + _AT_ONCE]:
                asked, came = updates[client_id]
                self.lanes.states[f"{client_id} aside"] = came.state
                sent = asked.payload_of(client_id)  # of a combiner or a cluster, not the session's model
                base = sent if isinstance(sent, Weights) else model
                trained = _trained(base, asked.update_of(came), is_delta=asked.request.reply == "delta")
                several.append(enter(desk, [client_id], phase="after_training", payload=trained))
            for one in several:
                one.finish()
            desk.payloads.clear()
        self._take(desk, ledger, "after_training", updates)

    def _desk(self, phase: MetricPhase, cohort: Collection[str]) -> tuple[Desk, ValidationLedger]:
        ctx, number = self.ctx, self.round_number
        ledger = ValidationLedger(ctx, number, self.model.model_id, phase, clusters=self.clusters)
        ledger.take_attempts(self.ledger)
        row = self.model if phase == "before_training" else None
        desk = desk_of(ctx, self.lanes, number, ledger, Payloads(ctx, number, None, row, prefix=f"{PAYLOAD}-{phase}"))
        desk.aside = frozenset(cohort)
        return desk, ledger

    def _tell(self, desk: Desk, phase: str, number: int) -> None:
        if number:
            self.ctx.watch(PhaseStarted(round_number=desk.round_number, phase=phase, num_clients=number))

    def _take(self, desk: Desk, ledger: ValidationLedger, phase: MetricPhase, cohort: Collection[str]) -> None:
        drop_states(desk, ledger)
        self.ledger.take_attempts(ledger)
        found = [row for client_id, row in ledger.found.items() if client_id in cohort]
        found.sort(key=lambda row: desk.clients[row.client_id].position)
        rows = weighted(self.ctx, desk.clients, found)
        self.rows += rows
        self.metric_rows += aggregates(rows, phase)


def _trained(model: Weights, update: Weights, *, is_delta: bool) -> Weights:
    """A client's model after its training, given the model that it got."""
    if not is_delta:
        return update
    changed = frozenset(model.parameters)
    return Weights(
        {name: one + update[name] if name in changed else update.get(name, one) for name, one in model.items()},
        buffers=model.buffers,
    )
