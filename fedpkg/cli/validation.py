"""``fedpkg validation``: what the clients measured of the global models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from fedpkg.cli import output
from fedpkg.cli.lists import of_clients_and_rounds
from fedpkg.cli.options import Settings
from fedpkg.session.record import check_there, find_session
from fedpkg.shown import shown

if TYPE_CHECKING:
    from fedpkg.stores.base import ValidationRow


@click.group("validation")
def command() -> None:
    """Show what the clients measured of the global models.

    \b
      fedpkg validation list --round 10
    """


@command.command("list")
@of_clients_and_rounds
@click.pass_obj
def list_validations(
    settings: Settings, session_ref: str | None, round_number: int | None, client_id: str | None
) -> None:
    """List every client's metrics, round by round.

    \b
      fedpkg validation list digits --client client-3

    The weight is the client's weight in the average of the round. All weights of one average have the same source: the
    num_examples reported with the metrics (reply); if a client reports none, the sizes of the clients' data (split),
    their num_examples in training (train), or equal weights (equal). Measurements before and after training, and those
    on the server's data, have another phase than `validate`. Where clusters of clients have models of their own, the
    column `cluster` says whose model a client measured.
    """
    with settings.reading() as (_home, store):
        session = find_session(store, session_ref)
        check_there(store, session, round_number=round_number, client_id=client_id)
        found = store.list_validations(session.session_id, round_number=round_number, client_id=client_id, phase=None)
    if settings.json:
        output.document([asdict(row) for row in found])
        return
    _show(found)
    if not found:
        output.words(f"session {session.session_id} has no such validation")


def _show(found: Sequence[ValidationRow]) -> None:
    from fedpkg.cli.report import metric_names

    metrics = [row.metrics if isinstance(row.metrics, dict) else {} for row in found]
    names = metric_names({name: value for values in metrics for name, value in values.items()})
    measured = [output.measures([values.get(name) for values in metrics]) for name in names]
    texts = [name for name in dict.fromkeys(name for values in metrics for name in values) if name not in names]
    texts = [name for name in texts if any(isinstance(values.get(name), str) for values in metrics)]
    has_phases = any(row.phase != "validate" for row in found)
    has_clusters = any(row.cluster for row in found)
    rows = [
        [
            str(row.round_number),
            row.client_id,
            *([row.phase] if has_phases else []),
            *([row.cluster or "-"] if has_clusters else []),
            *(column[i] for column in measured),
            *(shown(str(metrics[i].get(name, "-")))[:80] for name in texts),
            output.number(row.weight),
            row.weight_source,
        ]
        for i, row in enumerate(found)
    ]
    columns = ["round", "client", *["phase"] * has_phases, *["cluster"] * has_clusters]
    output.table([*columns, *names, *texts, "weight", "from"], rows)
