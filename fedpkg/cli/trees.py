"""What the combiners of a session's tree have done: calls, bytes, time, examples and metrics of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from fedpkg.cli import output
from fedpkg.errors import ConfigError
from fedpkg.reporting.combiners import accounts, ended_clusters

if TYPE_CHECKING:
    from fedpkg.cli.options import Settings
    from fedpkg.stores.base import SessionRow, ValidationRow
    from fedpkg.stores.sql import StateStore
    from fedpkg.strategies.tree import TreeStrategy


def validation_means(tree: TreeStrategy, rows: Sequence[ValidationRow]) -> dict[str, dict[str, float]]:
    """By combiner, the weighted means of the metrics of all clients below it, in the last round that has any."""
    from fedpkg.controller.metrics import average
    from fedpkg.strategies.base import upward

    last = max((row.round_number for row in rows), default=0)
    of_client = {row.client_id: row for row in rows if row.round_number == last}
    below: dict[str, list[ValidationRow]] = {}
    for one in tree.root.everyone():
        for client_id in one.clients:
            if (row := of_client.get(client_id)) is not None:
                for path in upward(one.path):
                    below.setdefault(path, []).append(row)
    means = {path: average((row.metrics, (row.weight, row.weight_source)) for row in of) for path, of in below.items()}
    return {
        path: {name: value for name, value in mean.values.items() if value is not None} for path, mean in means.items()
    }


def show_tree(settings: Settings, store: StateStore, session: SessionRow, round_number: int | None) -> None:
    """A row for each combiner, in all rounds or in one."""
    from fedpkg.session.clustering import tree_of_session
    from fedpkg.strategies.base import ROOT
    from fedpkg.topology.telling import indented

    combiners = store.list_combiners(session.session_id, round_number=round_number)
    tree, clusters = tree_of_session(store, session, settings.home_path)
    if tree is None:
        raise ConfigError(
            f"session {session.session_id} has no tree of combiners",
            hint="a run has one if its run.yaml has a section topology",
        )
    requests = [row for row in store.list_requests(session.session_id) if round_number in (None, row.round_number)]
    found = accounts([one.path for one in tree.root.everyone()], combiners, requests)
    ended = {} if clusters is None else ended_clusters(store.list_rounds(session.session_id))
    measured = validation_means(tree, store.list_validations(session.session_id, round_number=round_number))
    for one in found:
        one.validation = measured.get(one.path, {})
        one.ended_after = ended.get(one.path)
    if settings.json:
        output.document([asdict(one) for one in found])
        return
    columns = ["combiner", "rounds", "replies", "examples", "calls", "failed", "down", "up", "seconds"]
    is_timed = any(one.virtual_s is not None for one in found)
    names = list(dict.fromkeys(name for one in found for name in one.metrics))
    is_setting = {name: len(found) > 2 and len({one.metrics.get(name) for one in found}) == 1 for name in names}
    names = [name for name in names if not is_setting[name]][:4]
    of_validation = [name for name in found[0].validation if name != "num_examples"][:4]
    rows = []
    for one in found:
        mark = "" if one.ended_after is None else f" (ended after round {one.ended_after})"
        cells = [indented(one.path) + mark, str(one.rounds), f"{one.num_ok}/{one.num_asked}", f"{one.num_examples:g}"]
        cells += [str(one.calls), str(one.calls_failed), output.size(one.bytes_down), output.size(one.bytes_up)]
        cells += [f"{one.wall_s:.1f}"] + [f"{one.virtual_s or 0.0:.1f}"] * is_timed
        cells += [f"{one.metrics[name]:.4g}" if name in one.metrics else "" for name in names]
        cells += [f"{one.validation[name]:.4g}" if name in one.validation else "" for name in of_validation]
        rows.append(cells)
    output.table(columns + ["virtual s"] * is_timed + names + of_validation, rows)
    for one in found:
        if one.reason:
            failed = f"failed in {one.failed} round{'s' * (one.failed != 1)}: " if one.failed else ""
            output.result(f"{one.path or ROOT}: {failed}{one.reason}")
