"""A session's metrics and costs by round, as reports, tables and plots read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fedpkg.controller.metric_rows import all_metric_rows
from fedpkg.errors import NotFound, nearest
from fedpkg.stores.base import MetricRow

if TYPE_CHECKING:
    from fedpkg.stores.sql import StateStore

PHASES = (
    "validate",
    "held_out",
    "server",
    "before_training",
    "after_training",
    "train",
    "strategy",
)  # which a reader looks for first
PLAIN = ("validate", "strategy")  # their metrics are named without the phase; of the others, <phase>/<metric>


@dataclass(frozen=True)
class Costs:
    """What a session has cost from its first round to the end of this one."""

    round_number: int
    seconds: float  # wall time of the rounds
    bytes: int  # down and up, of the strategy's requests
    calls: int  # of clients, by the strategy's requests


@dataclass(frozen=True)
class Measured:
    """All that a session measured: (phase, metric) → round → aggregates, and the costs by round."""

    metrics: Mapping[tuple[str, str], Mapping[int, MetricRow]]
    costs: Mapping[int, Costs]
    names: Sequence[str] = field(default=())  # of its metrics, those first that a reader looks for first

    def find(self, metric: str, phase: str | None = None) -> Mapping[int, MetricRow]:
        """A metric by round, in the given phase, or else in the first of `PHASES` that has it.

        Raises:
            NotFound: the session has no such metric; the message names the nearest.
        """
        for each in PHASES if phase is None else (phase,):
            if found := self.metrics.get((each, metric)):
                return found
        known = list(dict.fromkeys(name for one, name in self.metrics if phase in (None, one)))
        where = "" if phase is None else f" in phase '{phase}'"
        raise NotFound(
            f"no round has a metric '{metric}'{where}{nearest(metric, known)}",
            hint=f"metrics{where}: {', '.join(known)}" if known else "no round of the session has a metric",
            metric=metric,
        )


def measured(store: StateStore, session_id: str) -> Measured:
    """The metrics and the costs of a session's committed rounds."""
    found: dict[tuple[str, str], dict[int, MetricRow]] = {}
    for row in _measures(store, session_id):
        found.setdefault((row.phase, row.metric), {})[row.round_number] = row
    ordered = sorted(found, key=lambda key: (phase_place(key[0]), metric_rank(key[1])))
    names = list(dict.fromkeys(name for _, name in ordered))
    return Measured({key: found[key] for key in ordered}, _costs(store, session_id), names)


def phase_place(phase: str) -> int:
    """Orders phases as `PHASES`; unknown ones come last."""
    return PHASES.index(phase) if phase in PHASES else len(PHASES)


def metric_rank(metric: str) -> int:
    """Orders metrics: those first that people look for first."""
    word = metric.lower()
    return 0 if "test_accuracy" in word else 1 if "accuracy" in word else 2 if "test" in word else 3


def _measures(store: StateStore, session_id: str) -> Iterator[MetricRow]:
    """The aggregates of the metrics over the clients, and the numbers that the strategy reports."""
    yield from all_metric_rows(store, session_id)
    for row in store.list_rounds(session_id, status=("aggregated", "finished")):
        yield from strategy_rows(session_id, row.round_number, row.strategy_metrics)


def strategy_rows(session_id: str, round_number: int, told: Mapping[str, Any]) -> Iterator[MetricRow]:
    """The numbers among what a strategy tells of its step, as rows of metrics."""
    for name, value in told.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            yield MetricRow(
                session_id=session_id,
                round_number=round_number,
                phase="strategy",
                metric=name,
                num_clients=0,
                weighted_mean=value,
            )


def _costs(store: StateStore, session_id: str) -> dict[int, Costs]:
    by_round: dict[int, list[int]] = {}
    for request in store.list_requests(session_id):
        sums = by_round.setdefault(request.round_number, [0, 0])
        sums[0] += request.bytes_down + request.bytes_up
        sums[1] += len(request.cohort)
    found: dict[int, Costs] = {}
    seconds, size, calls = 0.0, 0, 0
    for row in store.list_rounds(session_id, status=("aggregated", "finished")):
        sums = by_round.get(row.round_number, [0, 0])
        seconds, size, calls = seconds + (row.wall_s or 0.0), size + sums[0], calls + sums[1]
        found[row.round_number] = Costs(row.round_number, seconds, size, calls)
    return found
