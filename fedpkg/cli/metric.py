"""``fedpkg metric``: what clients with callbacks logged while they trained and measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from fedpkg.cli import output
from fedpkg.cli.lists import of_clients_and_rounds
from fedpkg.cli.options import Settings

if TYPE_CHECKING:
    from fedpkg.stores.base import SessionRow
    from fedpkg.stores.sql import StateStore


@click.group("metric")
def command() -> None:
    """Show what clients with callbacks logged.

    \b
      fedpkg metric list --round 10
    """


@command.command("list")
@of_clients_and_rounds
@click.pass_obj
def list_metrics(settings: Settings, session_ref: str | None, round_number: int | None, client_id: str | None) -> None:
    """List metrics by round and step, attributes and telemetry below.

    \b
      fedpkg metric list digits --client client-3
    """
    from fedpkg.session.record import check_there, find_session

    with settings.reading() as (_home, store):
        session = find_session(store, session_ref)
        check_there(store, session, round_number=round_number, client_id=client_id)
        found = [
            one for one in _logged(store, session, round_number) if client_id is None or one["client_id"] == client_id
        ]
    if settings.json:
        output.document(found)
        return
    steps = [(one, step) for one in found for step in one.get("metrics", ())]
    names = list(dict.fromkeys(name for _, step in steps for name in step if name != "step"))
    columns = [output.measures([step.get(name) for _, step in steps]) for name in names]
    rows = [
        [str(one["round"]), one["client_id"], one["entry_point"], str(step["step"]), *(column[i] for column in columns)]
        for i, (one, step) in enumerate(steps)
    ]
    if rows or not found:
        output.table(["round", "client", "entry point", "step", *names], rows)
    for one in found:
        for kind in ("attributes", "telemetry"):
            if told := ", ".join(f"{name}={value}" for name, value in one.get(kind, {}).items()):
                output.result(f"round {one['round']}, {one['client_id']}, {one['entry_point']}: {kind} {told}")
    if not found:
        output.words(f"the clients of session {session.session_id} logged nothing")


def _logged(store: StateStore, session: SessionRow, round_number: int | None) -> Iterator[dict[str, Any]]:
    """What the tasks logged that counted, by round."""
    replies = {row.task_id: row.metadata for row in store.list_updates(session.session_id, round_number)}
    told: list[tuple[int, str, str, object]] = [
        (task.round_number, task.client_id, task.entry_point, replies[task.task_id])
        for task in store.list_tasks(session.session_id, round_number=round_number, status="ok")
        if task.task_id in replies
    ]
    told += [
        (row.round_number, row.client_id, "validate", row.metrics)
        for row in store.list_validations(session.session_id, round_number=round_number)
    ]
    for number, client_id, entry_point, said in sorted(told, key=lambda one: one[0]):
        logged = said.get("logged") if isinstance(said, dict) else None
        if isinstance(logged, dict) and logged:
            yield {"round": number, "client_id": client_id, "entry_point": entry_point, **logged}
