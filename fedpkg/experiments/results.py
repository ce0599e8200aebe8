"""The runs of sweeps and sessions with what tells them apart: the rows of tables and the curves of plots."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpkg.errors import NotFound, nearest
from fedpkg.experiments.record import find_sweep, with_sessions
from fedpkg.reporting.measures import PLAIN, Measured, measured
from fedpkg.types import leaves

if TYPE_CHECKING:
    from fedpkg.stores.base import SessionRow
    from fedpkg.stores.sql import StateStore

UNGROUPED = ("seed", "name")  # keys that runs of one group may differ in


@dataclass(frozen=True)
class Run:
    """One session, and what is known of it by key. ``choices``: of a sweep's point, the keys that the sweep chose."""

    session_id: str
    config: Mapping[str, Any]  # dotted key → value
    choices: Mapping[str, Any]
    measured: Measured

    def value(self, key: str) -> Any:
        return self.choices[key] if key in self.choices else self.config.get(key)


@dataclass(frozen=True)
class Group:
    """Runs with the same values of the keys; they differ in their seeds."""

    values: Mapping[str, Any]
    runs: Sequence[Run]

    @property
    def label(self) -> str:
        told = {key: value for key, value in self.values.items() if value is not None}
        return ", ".join(f"{short_key(key, self.values)} {value_text(value)}" for key, value in told.items())


def find_runs(store: StateStore, names: Sequence[str]) -> list[Run]:
    """The runs of these sweeps, folders (their newest sweep) and sessions, each once, in this order.

    Args:
        names: none is the newest sweep or, in a home without sweeps, all sessions.

    Raises:
        NotFound: one of the names is neither of them, or there is no run.
    """
    found: dict[str, Run] = {}
    if not names:
        names = [store.sweeps.all()[-1].name] if store.sweeps.all() else [s.session_id for s in store.list_sessions()]
    for name in names:
        for session, choices in _sessions_of(store, name):
            if session.session_id not in found:
                about = {".".join(path): value for path, value in leaves(session.config)}
                found[session.session_id] = Run(session.session_id, about, choices, measured(store, session.session_id))
    if not found:
        raise NotFound(
            f"no session has begun in {', '.join(names)}" if names else "this home has no session yet",
            hint="fedpkg experiment sweep FOLDER key=a,b runs a sweep; --home names another home",
        )
    return list(found.values())


def _sessions_of(store: StateStore, name: str) -> Iterator[tuple[SessionRow, dict[str, Any]]]:
    """The sessions that a word of the command line names, with the choices of a sweep's points."""
    sweeps = {sweep.name: sweep for sweep in store.sweeps.all()}
    path = str(Path(name).absolute())
    of_folder = [sweep.name for sweep in sweeps.values() if str(Path(sweep.source).absolute()) == path]
    if name in sweeps or of_folder:
        points = with_sessions(store, find_sweep(store, name if name in sweeps else of_folder[-1]).name)
        has_baselines = any(point.baseline for point, _ in points)
        for point, session in points:
            if session is not None:
                baseline = {"baseline": point.baseline or "federated"} if has_baselines else {}
                yield session, {**point.choices, **baseline}
        return
    try:
        yield store.get_session(name), {}
    except NotFound as error:
        known = [*sweeps, *(session.session_id for session in store.list_sessions())]
        raise NotFound(
            f"there is no sweep, folder of a sweep or session '{name}'{nearest(name, known)}",
            hint=f"sweeps: {', '.join(sweeps)}" if sweeps else "fedpkg session list lists the sessions",
        ) from error


def grouped(runs: Sequence[Run], by: Sequence[str] = ()) -> list[Group]:
    """Groups of runs with the same values of the keys, in the order of their first runs.

    Args:
        by: keys of the configuration (also the end of one: ``lr``) or names that a sweep chose; none: all keys in which
            the runs differ, except `UNGROUPED`.

    Raises:
        NotFound: no run has such a key.
    """
    keys = [_full_key(key, runs) for key in by] or differing_keys(runs)
    groups: dict[str, list[Run]] = {}
    for run in runs:
        identity = json.dumps([run.value(key) for key in keys], sort_keys=True, default=str)
        groups.setdefault(identity, []).append(run)
    return [Group({key: members[0].value(key) for key in keys}, members) for members in groups.values()]


def differing_keys(runs: Sequence[Run]) -> list[str]:
    """The keys in which runs differ: those that sweeps chose if all runs are of sweeps, else of the configuration."""
    of_sweeps = all(run.choices for run in runs)
    known = dict.fromkeys(key for run in runs for key in (run.choices if of_sweeps else run.config))
    return [
        key
        for key in known
        if key.rpartition(".")[2] not in UNGROUPED
        and len({json.dumps(run.value(key), sort_keys=True, default=str) for run in runs}) > 1
    ]


def pooled_keys(groups: Sequence[Group]) -> list[str]:
    """Keys in which runs of one group differ, besides their seeds: a reader must know that they are pooled."""
    return list(dict.fromkeys(key for group in groups for key in differing_keys(group.runs)))


def _full_key(key: str, runs: Sequence[Run]) -> str:
    known = dict.fromkeys(name for run in runs for name in (*run.choices, *run.config))
    if key in known:
        return key
    ends = [name for name in known if name.endswith(f".{key}")]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise NotFound(f"'{key}' is the end of several keys: {', '.join(ends[:5])}", hint="give more of it")
    short = [name.rpartition(".")[2] for name in known]
    raise NotFound(
        f"no run has a key '{key}'{nearest(key, [*known, *short])}",
        hint=f"the runs differ in: {', '.join(differing_keys(runs)) or 'their seeds only'}",
    )


def short_key(key: str, keys: Mapping[str, Any] | Sequence[str]) -> str:
    """The last part of a key, unless that of another key is the same: ``lr`` for ``arguments.train.lr``."""
    last = key.rpartition(".")[2]
    alike = [other for other in keys if other.rpartition(".")[2] == last]
    return last if len(alike) == 1 and last != "name" else key


def value_text(value: Any) -> str:
    """A value of the configuration in a cell."""
    if value is None:
        return "–"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def check_metric(runs: Sequence[Run], metric: str | None, phase: str | None) -> tuple[str, str | None, list[str]]:
    """The metric to show (None: the first that a run has), its phase, and the sessions without it.

    ``train/loss`` (also ``train_loss``) is the metric ``loss`` of the phase ``train``.

    Raises:
        NotFound: no run has it; the message names the nearest.
    """
    every = dict.fromkeys(key for run in runs for key in run.measured.metrics)
    if metric and phase is None and not any(metric == name for _, name in every):
        of, sign, rest = metric.partition("/" if "/" in metric else "_")
        if (of, rest) in every and (sign == "/" or of == "train"):
            metric, phase = rest, of
    names = dict.fromkeys(name for of, name in every if phase in (None, of))
    chosen = metric or next((name for run in runs for name in run.measured.names if name in names), None)
    if chosen is None or chosen not in names:
        spelled = list(names) if phase else [f"{of}/{name}" if of not in PLAIN else name for of, name in every]
        where = "" if phase is None else f" in phase '{phase}'"
        word = f"'{metric}'" if metric else "with a value"
        raise NotFound(
            f"no run has a metric {word}{where}{nearest(metric or '', spelled)}",
            hint=f"metrics{where}: {', '.join(spelled)}" if names else "no round of these sessions has a metric",
        )
    without = [run.session_id for run in runs if not values_of(run, chosen, phase)]
    return chosen, phase, without


def values_of(run: Run, metric: str, phase: str | None) -> dict[int, float]:
    """Round → weighted mean over the clients; without rounds that have no finite mean."""
    try:
        found = run.measured.find(metric, phase)
    except NotFound:
        return {}
    return {number: one.weighted_mean for number, one in found.items() if one.weighted_mean is not None}
