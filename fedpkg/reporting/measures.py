"""A session's metrics and costs by round, as reports, tables and plots read them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fedpkg.errors import NotFound, nearest
from fedpkg.stores.base import HELD_OUT

if TYPE_CHECKING:
    from fedpkg.stores.base import RoundRow
    from fedpkg.stores.sql import StateStore

_EXAMPLES = "num_examples"  # counts the examples; it is not a metric
PHASES = ("validate", "held_out", "server", "before_training", "train", "strategy")  # which a reader looks for first


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
    rounds = store.list_rounds(session_id, status=("aggregated", "finished"))
    spread = _spread(store, session_id)
    for row in rounds:
        number = row.round_number
        for phase, name, value in _means(row):
            yield replace(spread.get((number, phase, name)) or Measure(number, phase, name), weighted_mean=value)


def _means(row: RoundRow) -> Iterator[tuple[str, str, float | None]]:
    """Phase, name and weighted mean of each metric in a round's row."""
    metrics = {name: value for name, value in row.metrics.items() if name.removeprefix(HELD_OUT) != _EXAMPLES}
    for name, value in metrics.items():
        phase = "held_out" if name.startswith(HELD_OUT) else "validate"
        yield phase, name.removeprefix(HELD_OUT), value
    yield from (("train", name, value) for name, value in row.train_metrics.items() if name != _EXAMPLES)
    for name, value in row.strategy_metrics.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            yield "strategy", name, value


def _spread(store: StateStore, session_id: str) -> dict[tuple[int, str, str], Measure]:
    """How the clients' values are distributed: of an older fedpkg only the validations are on record."""
    values: dict[tuple[int, str], list[float]] = {}
    for row in store.list_validations(session_id):
        for name, value in row.metrics.items() if isinstance(row.metrics, dict) else ():
            if (
                isinstance(value, (int, float))
                and not isinstance(value, bool)
                and abs(value) < 1e300
                and name != _EXAMPLES
            ):
                values.setdefault((row.round_number, name), []).append(float(value))
    return {(number, "validate", name): _of(number, name, found) for (number, name), found in values.items()}


def _of(number: int, name: str, values: list[float]) -> Measure:
    values.sort()
    mean, std = statistics.fmean(values), statistics.pstdev(values)
    deciles = statistics.quantiles(values, n=10, method="inclusive") if len(values) > 1 else values * 9
    return Measure(number, "validate", name, None, mean, std, values[0], values[-1], deciles)


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
