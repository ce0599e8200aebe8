"""A session's metrics and costs by round, as reports, tables and plots read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fedpkg.errors import NotFound, nearest

if TYPE_CHECKING:
    from fedpkg.stores.base import MetricRow, RoundRow, ValidationRow
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
class Measure:
    """One metric of a round over its clients; None: unknown, or no client has a finite value."""

    round_number: int
    phase: str
    metric: str
    weighted_mean: float | None = None
    mean: float | None = None
    std: float | None = None
    min: float | None = None
    max: float | None = None
    deciles: Sequence[float] = ()
    worst_tenth: float | None = None
    best_tenth: float | None = None
    num_clients: int = 0


@dataclass(frozen=True)
class Costs:
    """What a session has cost from its first round to the end of this one."""

    round_number: int
    seconds: float  # wall time of the rounds
    bytes: int  # down and up, of the strategy's requests
    calls: int  # of clients, by the strategy's requests


@dataclass(frozen=True)
class Measured:
    """All that a session measured: (phase, metric) → round → measure, and the costs by round."""

    metrics: Mapping[tuple[str, str], Mapping[int, Measure]]
    costs: Mapping[int, Costs]
    names: Sequence[str] = field(default=())  # of its metrics, those first that a reader looks for first

    def find(self, metric: str, phase: str | None = None) -> Mapping[int, Measure]:
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
    found: dict[tuple[str, str], dict[int, Measure]] = {}
    for measure in _measures(store, session_id):
        found.setdefault((measure.phase, measure.metric), {})[measure.round_number] = measure
    ordered = sorted(found, key=lambda key: (PHASES.index(key[0]) if key[0] in PHASES else len(PHASES), _rank(key[1])))
    names = list(dict.fromkeys(name for _, name in ordered))
    return Measured({key: found[key] for key in ordered}, _costs(store, session_id), names)


def _rank(metric: str) -> int:
    word = metric.lower()
    return 0 if "test_accuracy" in word else 1 if "accuracy" in word else 2 if "test" in word else 3


def _measures(store: StateStore, session_id: str) -> Iterator[Measure]:
    by_round: dict[int, list[MetricRow]] = {}
    for one in store.list_metric_rows(session_id):
        by_round.setdefault(one.round_number, []).append(one)
    rounds = store.list_rounds(session_id, status=("aggregated", "finished"))
    former = [row for row in rounds if row.round_number not in by_round]
    if former:
        by_round |= _former(store, session_id, former)
    for row in rounds:
        yield from map(_measure, by_round.get(row.round_number, ()))
        for name, value in row.strategy_metrics.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                yield Measure(row.round_number, "strategy", name, value)


def _measure(row: MetricRow) -> Measure:
    return Measure(
        row.round_number, row.phase, row.metric, row.weighted_mean, row.mean, row.std, row.min, row.max,
        tuple(row.deciles), row.worst_tenth, row.best_tenth, row.num_clients,
    )  # fmt: skip


def _former(store: StateStore, session_id: str, rounds: Sequence[RoundRow]) -> dict[int, list[MetricRow]]:
    """The aggregates of rounds of an older fedpkg: the weighted means on record, and the spread of the validations."""
    from fedpkg.controller.metric_rows import former_rows, metric_rows

    replies: dict[int, list[ValidationRow]] = {}
    for validation in store.list_validations(session_id):
        if validation.phase == "validate":
            replies.setdefault(validation.round_number, []).append(validation)
    found = {}
    for row in rounds:
        means = former_rows(row)
        validated = replies.get(row.round_number, ())
        if not any(mean.phase == "held_out" for mean in means):  # else the validations of both kinds are mixed
            told = [(reply.metrics, (reply.weight, reply.weight_source)) for reply in validated]
            spread = metric_rows(told, session_id=session_id, round_number=row.round_number, phase="validate")
            known = {one.metric: one for one in spread}
            means = [
                replace(known[mean.metric], weighted_mean=mean.weighted_mean)
                if mean.phase == "validate" and mean.metric in known
                else mean
                for mean in means
            ]
        found[row.round_number] = means
    return found


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
