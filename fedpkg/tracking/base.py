"""The protocol of a tracker, and what it gets: plain data of a session and of its finished rounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeAlias

from msgspec import Meta

from fedpkg.stores.base import CombinerRow, MetricRow, RoundRow

Aggregate: TypeAlias = Literal["mean", "std", "min", "max", "median", "worst_tenth", "best_tenth"]
Aggregates: TypeAlias = Annotated[
    list[Aggregate],
    Meta(description="Aggregates over the clients to report besides the weighted mean, such as [std, worst_tenth]."),
]


@dataclass(frozen=True)
class TrackedRun:
    """A session that is tracked.

    Args:
        folder: the session's folder; a tracker may write files there.
        config: the configuration with all defaults, as JSON values, with passwords, tokens and keys hidden.
        num_tracked: rounds that this tracker has been given already, before the session was resumed.
        kept: what the tracker keeps for later, as JSON values, such as the id of its run. It is written to the
            session's folder after each round.
        sweep: finds the name of the session's sweep and the values that were chosen for this session, once they are on
            record; None: it is in no sweep.
    """

    session_id: str
    name: str
    folder: Path
    config: Mapping[str, Any]
    num_rounds: int
    num_tracked: int = 0
    kept: dict[str, Any] = field(default_factory=dict)
    sweep: Callable[[], tuple[str, Mapping[str, Any]] | None] = lambda: None


@dataclass(frozen=True)
class TrackedRound:
    """A finished round: its row, the aggregates of its metrics, its model's file (which may be pruned any time), and
    what the combiners of a tree did."""

    row: RoundRow
    metrics: Sequence[MetricRow]
    model: Path | None = None
    combiners: Sequence[CombinerRow] = ()

    @property
    def number(self) -> int:
        return self.row.round_number

    def rows(self) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        """Phase, metric and aggregates, in a fixed order. The phase ``round`` has the facts of the round, ``strategy``
        the numbers that the strategy reports, ``combiner`` those of combiners below the root, by path, of at most
        `MOST_COMBINERS` that are nearest to it, ``cluster`` those of clusters with models of their own."""
        row = self.row
        facts = {"seconds": row.wall_s, "ok": row.num_ok, "failed": row.num_failed, "examples": row.num_examples}
        for name, value in facts.items():
            yield "round", name, {"weighted_mean": value}
        for name, value in row.strategy_metrics.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                yield "strategy", name, {"weighted_mean": value}
        clusters = {path: number for number, path in enumerate(sorted({one.cluster for one in self.metrics} - {""}))}
        for one in self.metrics:
            values = {name: getattr(one, name) for name in AGGREGATES}
            if not one.cluster:
                yield one.phase, one.metric, values
            elif clusters[one.cluster] < MOST_CLUSTERS:
                yield "cluster", f"{one.cluster}/{one.phase}/{one.metric}", values
        below = sorted((one for one in self.combiners if one.path), key=lambda one: one.path.count("/"))
        for combiner in below[:MOST_COMBINERS]:
            has_failed = combiner.status == "failed"
            numbers = {"examples": combiner.num_examples, "ok": combiner.num_ok, "has_failed": float(has_failed)}
            for name, value in {**combiner.metrics, **numbers}.items():
                yield "combiner", f"{combiner.path}/{name}", {"weighted_mean": value}

    def scalars(self, aggregates: Sequence[Aggregate] = ()) -> dict[str, float]:
        """Finite numbers by tag: ``validate/accuracy`` is the weighted mean, ``validate/accuracy/std`` an aggregate."""
        found: dict[str, Any] = {}
        for phase, metric, values in self.rows():
            tag = f"{phase}/{metric}"
            found[tag] = values["weighted_mean"]
            deciles = values.get("deciles")
            for name in aggregates:
                found[f"{tag}/{name}"] = (deciles and deciles[4]) if name == "median" else values.get(name)
        return {tag: float(value) for tag, value in found.items() if value is not None and math.isfinite(value)}


MOST_COMBINERS = MOST_CLUSTERS = 50
AGGREGATES = ("num_clients", "weighted_mean", "mean", "std", "min", "max", "deciles", "worst_tenth", "best_tenth")


class Tracker(Protocol):
    """Gets a session's finished rounds, in order, each once. All methods run in one thread of the tracker's.

    An exception is logged once; the rounds are offered again with the next one. It never affects the session.
    """

    def begin(self, run: TrackedRun) -> None:
        """The session starts, or is resumed. Called again if it failed."""

    def round(self, finished: TrackedRound) -> None:
        """A round is finished, or was finished before the tracker was added. Called again if it failed."""

    def end(self, status: str) -> None:
        """The session has ended: ``finished``, ``stopped``, ``interrupted`` or ``failed``."""
