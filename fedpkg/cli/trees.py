"""What the combiners of a session's tree have done: calls, bytes, time, examples and metrics of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from fedpkg.cli import output
from fedpkg.errors import ConfigError

if TYPE_CHECKING:
    from fedpkg.cli.options import Settings
    from fedpkg.stores.base import CombinerRow, RequestRow, SessionRow, ValidationRow
    from fedpkg.stores.sql import StateStore
    from fedpkg.strategies.tree import TreeStrategy


@dataclass
class Account:
    """A combiner in the rounds that are shown; calls, bytes and seconds are those of its own clients, and of the models
    between it and the combiner above. ``metrics``: of the last of the rounds; ``validation``: what the
    clients below it measured in the last round that was validated, each of the global model, or of the own model of the
    nearest combiner above it that has one.
    """

    path: str
    rounds: int = 0
    failed: int = 0
    reason: str = ""
    num_asked: int = 0
    num_ok: int = 0
    num_examples: float = 0.0
    calls: int = 0
    calls_failed: int = 0
    bytes_down: int = 0
    bytes_up: int = 0
    wall_s: float = 0.0
    virtual_s: float | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    validation: dict[str, float] = field(default_factory=dict)


def accounts(paths: Sequence[str], combiners: Sequence[CombinerRow], requests: Sequence[RequestRow]) -> list[Account]:
    """The accounts of combiners, in the order of their paths."""
    found: dict[str, Account] = {path: Account(path) for path in paths}
    for row in combiners:
        one = found.setdefault(row.path, Account(row.path))  # of clusters that are no more, too
        one.rounds += row.rounds
        one.failed += row.status == "failed"
        one.reason = row.reason or one.reason
        one.num_asked, one.num_ok, one.num_examples = row.num_asked, row.num_ok, row.num_examples
        one.bytes_down += row.bytes_down
        one.bytes_up += row.bytes_up
        one.metrics = row.metrics
        if row.virtual_s is not None:
            one.virtual_s = (one.virtual_s or 0.0) + row.virtual_s
    for request in requests:
        if (account := found.get(request.client_group or "")) is not None:
            account.calls += len(request.cohort)
            account.calls_failed += request.num_failed
            account.bytes_down += request.bytes_down
            account.bytes_up += request.bytes_up
            account.wall_s += request.wall_s or 0.0
    return list(found.values())


def validation_means(tree: TreeStrategy, rows: Sequence[ValidationRow]) -> dict[str, dict[str, float]]:
    """By combiner, the weighted means of the metrics of all clients below it, in the last round that has any."""
    from fedpkg.controller.metrics import average
    from fedpkg.strategies.tree import upward

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
    from fedpkg.topology.telling import ROOT, indented

    combiners = store.list_combiners(session.session_id, round_number=round_number)
    tree, _ = tree_of_session(store, session, settings.home_path)
    if tree is None:
        raise ConfigError(
            f"session {session.session_id} has no tree of combiners",
            hint="a run has one if its run.yaml has a section topology",
        )
    requests = [row for row in store.list_requests(session.session_id) if round_number in (None, row.round_number)]
    found = accounts([one.path for one in tree.root.everyone()], combiners, requests)
    measured = validation_means(tree, store.list_validations(session.session_id, round_number=round_number))
    for one in found:
        one.validation = measured.get(one.path, {})
    if settings.json:
        output.document([asdict(one) for one in found])
        return
    columns = ["combiner", "rounds", "replies", "examples", "calls", "failed", "down", "up", "seconds"]
    is_timed = any(one.virtual_s is not None for one in found)
    names = list(dict.fromkeys(name for one in found for name in one.metrics))
    names = [name for name in names if len({one.metrics.get(name) for one in found}) > 1][:4]  # no settings
    of_validation = [name for name in found[0].validation if name != "num_examples"][:4]
    rows = []
    for one in found:
        cells = [indented(one.path), str(one.rounds), f"{one.num_ok}/{one.num_asked}", f"{one.num_examples:g}"]
        cells += [str(one.calls), str(one.calls_failed), output.size(one.bytes_down), output.size(one.bytes_up)]
        cells += [f"{one.wall_s:.1f}"] + [f"{one.virtual_s or 0.0:.1f}"] * is_timed
        cells += [f"{one.metrics[name]:.4g}" if name in one.metrics else "" for name in names]
        cells += [f"{one.validation[name]:.4g}" if name in one.validation else "" for name in of_validation]
        rows.append(cells)
    output.table(columns + ["virtual s"] * is_timed + names + of_validation, rows)
    for one in found:
        if one.failed:
            output.result(f"{one.path or ROOT}: failed in {one.failed} round{'s' * (one.failed != 1)}: {one.reason}")
