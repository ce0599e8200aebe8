"""``fedpkg metric``: aggregates of metrics over clients, and what clients with callbacks logged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from fedpkg.cli import output
from fedpkg.cli.lists import of_clients_and_rounds
from fedpkg.cli.options import Settings
from fedpkg.shown import shown

if TYPE_CHECKING:
    from fedpkg.stores.base import MetricRow, SessionRow
    from fedpkg.stores.sql import StateStore


@click.group("metric")
def command() -> None:
    """Show metrics over the clients, and what clients logged.

    \b
      fedpkg metric list --round 10
      fedpkg metric list --aggregates
    """


@command.command("list")
@click.option("--aggregates", is_flag=True, help="List each round's metrics, aggregated over the clients.")
@of_clients_and_rounds
@click.pass_obj
def list_metrics(
    settings: Settings, session_ref: str | None, round_number: int | None, client_id: str | None, aggregates: bool
) -> None:
    """List what clients logged by round and step.

    \b
      fedpkg metric list digits --client client-3
      fedpkg metric list digits --aggregates --round 10

    --aggregates shows the weighted mean, mean, standard deviation, minimum, deciles and maximum of each metric over
    the clients, and its mean over the worst and the best tenth of them (--json has all deciles). `fedpkg validation
    list` shows each client's values.
    """
    from fedpkg.session.record import check_there, find_session

    if aggregates and client_id is not None:
        raise click.UsageError("--aggregates are of all clients: leave out --client")
    with settings.reading() as (_home, store):
        session = find_session(store, session_ref)
        check_there(store, session, round_number=round_number, client_id=client_id)
        if aggregates:
            show_aggregates(settings, store, session, round_number)
            return
        found = [
            one for one in _logged(store, session, round_number) if client_id is None or one["client_id"] == client_id
        ]
    if settings.json:
        output.document(found)
    elif found:
        _show_logged(found)
    else:
        output.words(f"the clients of session {session.session_id} logged nothing")


def _show_logged(found: list[dict[str, Any]]) -> None:
    steps = [(one, step) for one in found for step in one.get("metrics", ())]
    names = list(dict.fromkeys(name for _, step in steps for name in step if name != "step"))
    columns = [output.measures([step.get(name) for _, step in steps]) for name in names]
    rows = [
        [str(one["round"]), one["client_id"], one["entry_point"], str(step["step"]), *(column[i] for column in columns)]
        for i, (one, step) in enumerate(steps)
    ]
    if rows:
        output.table(["round", "client", "entry point", "step", *names], rows)
    for one in found:
        for kind in ("attributes", "telemetry"):
            if told := ", ".join(f"{name}={value}" for name, value in one.get(kind, {}).items()):
                output.result(f"round {one['round']}, {one['client_id']}, {one['entry_point']}: {kind} {told}")


def show_aggregates(settings: Settings, store: StateStore, session: SessionRow, round_number: int | None) -> None:
    """List the aggregates of a session's metrics over its clients."""
    from fedpkg.controller.metric_rows import all_metric_rows

    found = all_metric_rows(store, session.session_id, clusters=True)
    found = [one for one in found if round_number is None or one.round_number == round_number]
    if settings.json:
        output.document([asdict(one) for one in found])
        return
    if not found:
        output.words(f"session {session.session_id} has no metrics")
        return
    alike: dict[tuple[str, str], list[int]] = {}  # the values of one metric of one phase have the same decimals
    for place, one in enumerate(found):
        alike.setdefault((one.phase, one.metric), []).append(place)
    cells: dict[int, list[str]] = {}
    for places in alike.values():
        texts = output.measures([value for place in places for value in _numbers(found[place])])
        for number, place in enumerate(places):
            cells[place] = texts[number * len(_COLUMNS) : (number + 1) * len(_COLUMNS)]
    has_clusters = any(one.cluster for one in found)
    rows = [
        [
            str(one.round_number),
            one.phase,
            *([one.cluster or "(all)"] if has_clusters else []),
            shown(one.metric),
            str(one.num_clients),
            *cells[place],
        ]
        for place, one in enumerate(found)
    ]
    output.table(["round", "phase", *["cluster"] * has_clusters, "metric", "clients", *_COLUMNS], rows)


_COLUMNS = ["weighted", "mean", "std", "min", "decile 1", "median", "decile 9", "max", "worst 10%", "best 10%"]


def _numbers(row: MetricRow) -> list[float | None]:
    """The values of `_COLUMNS`."""
    first, median, last = (row.deciles[0], row.deciles[4], row.deciles[8]) if row.deciles else (None, None, None)
    spread = [row.min, first, median, last, row.max, row.worst_tenth, row.best_tenth]
    return [row.weighted_mean, row.mean, row.std, *spread]


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
