"""Validation: what clients measure of a round's model, and what that comes to."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fedpkg.controller.asking import Asked, Asking
from fedpkg.controller.context import SessionContext
from fedpkg.controller.events import PhaseStarted
from fedpkg.controller.ledger import ValidationLedger
from fedpkg.controller.metrics import average
from fedpkg.samplers.base import Sample
from fedpkg.stores.base import HELD_OUT, ClientRow, ClientUpdate, ModelRow, RequestRow, ValidationRow
from fedpkg.strategies.base import Request
from fedpkg.types import Json, ReplyKind

VALIDATE = "validate"


@dataclass(frozen=True)
class Validation:
    """What a validation came to.

    Args:
        rows: what each client measured, and what that weighs.
        clients: tokens of what they were left with, and how many examples they last trained on.
        metrics: averages by name.
        averages: what is to be known of them, by whose they are.
    """

    rows: Sequence[ValidationRow] = ()
    clients: Mapping[str, ClientUpdate] = field(default_factory=dict)
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    averages: Mapping[str, dict[str, Json]] = field(default_factory=dict)


class _Validating(Asking):
    """Asks clients to validate a model. Nobody drops out, nobody is required, and it takes no virtual time."""

    def __init__(self, ctx: SessionContext, round_number: int, model: ModelRow) -> None:
        self.found = ValidationLedger(ctx, round_number, model.model_id)
        super().__init__(ctx, round_number, None, model, self.found)

    def validate(self) -> None:
        chosen = self.choosing.to_validate()
        self.ctx.watch(PhaseStarted(round_number=self.round_number, phase=VALIDATE, num_clients=len(chosen)))
        left = tuple(client.client_id for client in chosen if client.client_id not in self.found.found)
        request = Request(
            payload=self.model,  # type: ignore[arg-type]  # its file alone is sent
            entry_point=VALIDATE,
            reply_kind=ReplyKind.METRICS,
            required=0,
        )
        self.open_gathering()
        self._ask([(request, Sample(left, target=len(left)))])
        self.finish()

    def durations(self, request: Request, row: RequestRow) -> list[float] | None:
        return None

    def _drops_out(self, asked: Asked, client_id: str) -> bool:
        return False

    def _tell(self, num_tasks: int) -> None:
        """It was told with all whom it asks, also those who had answered before."""


def validate(ctx: SessionContext, round_number: int, model: ModelRow) -> Validation:
    """Have clients measure a round's global model; held-out clients are averaged apart."""
    asking = _Validating(ctx, round_number, model)
    asking.validate()
    # In the order of the clients, so that the average does not depend on who was first.
    rows = [asking.found.found[client_id] for client_id in asking.clients if client_id in asking.found.found]
    among = _weighted(ctx, asking.clients, [one for one in rows if one.client_id not in ctx.held_out])
    apart = _weighted(ctx, asking.clients, [one for one in rows if one.client_id in ctx.held_out])
    metrics, about = _average(among)
    averages = {VALIDATE: about}
    if apart:
        held_out, averages["held_out"] = _average(apart)
        metrics |= {f"{HELD_OUT}{name}": value for name, value in held_out.items()}
    left = {name: (token, asking.clients[name].last_num_examples) for name, token in asking.found.states.items()}
    return Validation(among + apart, left, metrics, averages)


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
