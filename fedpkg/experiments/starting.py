"""Start a sweep, or resume one: plan its points, estimate what they need, record them, and run them."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from fedpkg.config import RunConfig
from fedpkg.errors import FedpkgError, SessionError
from fedpkg.experiments.axes import Chosen, Dimension, as_overrides, points, split_overrides
from fedpkg.experiments.planning import Maker, Plan, Settings, Source, check_name, plan, source_of
from fedpkg.experiments.record import find_sweep, status_of_sweep
from fedpkg.experiments.sweep import Listed, Points, SweepRun, Watch
from fedpkg.session.estimate import Estimate, check_disk, estimate, known_of, total
from fedpkg.stores.base import RoundRow, SweepPointRow, SweepRow
from fedpkg.stores.home import Home
from fedpkg.stores.opening import open_store


@dataclass(frozen=True)
class Planned:
    """A sweep that is about to run."""

    sweep: SweepRow
    points: list[SweepPointRow]
    num_repeated: int = 0  # points that were left out, because an earlier one has the same configuration
    estimate: Estimate | None = None  # of the points that are left to run; None for a search


@dataclass(frozen=True)
class Prepared:
    """A sweep with all that its run needs."""

    planned: Planned
    _runner: SweepRun

    def run(self) -> SweepRow:
        """Run it; see `fedpkg.experiments.sweep.SweepRun.run`."""
        return self._runner.run()


def prepare_sweep(
    home: Home,
    source: Source,
    overrides: Sequence[str],
    settings: Settings,
    *,
    watch: Watch,
    name: str | None = None,
) -> Prepared:
    """Plan a new sweep; it is recorded when it runs.

    Args:
        name: None: the name of the configuration, with a number if there is a sweep of that name.

    Raises:
        ConfigError: an override, a name or the number of points is wrong, or no point can be composed.
        SessionError: there is a sweep of this name.
        StoreError: the disk cannot hold it.
    """
    fixed, dimensions = split_overrides(overrides, source.experiment)
    name = _name_for(home, name, lambda: _first_name(source, fixed, dimensions, settings))
    made = Plan([]) if settings.kind == "search" else plan(name, source, fixed, dimensions, settings, cache=home.data)
    now = time.time()
    row = SweepRow(
        name=name,
        kind=settings.kind,
        source=source.name,
        overrides=list(overrides),
        options=_options(settings),
        created_at=now,
        updated_at=now,
    )
    queue: Points = Listed(point for point in made.points if point.status == "waiting")
    if settings.kind == "search":
        queue = _search(home, Maker(name, source, fixed), dimensions, settings)
    needed = _needed(home, made.points)
    later = functools.partial(_needed_later, home, name)
    runner = SweepRun(home, row, queue, parallel=settings.parallel, watch=watch, later=later, new=made.points)
    return Prepared(Planned(row, made.points, made.num_repeated, needed), runner)


def prepare_resumed(
    home: Home,
    name: str | None,
    *,
    watch: Watch,
    parallel: int | None = None,
) -> Prepared:
    """A recorded sweep, to be resumed: its finished points are not run again, those that failed are.

    Points that could not be composed are composed again, as their files may have been corrected.

    Args:
        parallel: None: as before.

    Raises:
        NotFound: there is no such sweep.
        SessionError: it is running.
    """
    with open_store(home) as store:
        row = find_sweep(store, name)
        done = store.sweeps.points(row.name)
    if status_of_sweep(home, row) == "running":
        raise SessionError(
            f"sweep {row.name} is running in process {row.process}", hint=f"fedpkg experiment stop {row.name}"
        )
    settings = _settings_of(row, parallel)
    done = _composed_again(home, row, settings, done)
    left = [point for point in done if point.status in ("waiting", "running", "failed") and point.config is not None]
    queue: Points = Listed(left)
    if row.kind == "search":
        if not Path(row.source).exists():
            raise SessionError(
                f"search {row.name} was started by a program, or its file {row.source} was moved",
                hint="start a new search: the later points of this one cannot be composed",
            )
        source = source_of(row.source, settings.search_path)
        fixed, dimensions = split_overrides(row.overrides, source.experiment)
        queue = _search(home, Maker(row.name, source, fixed, done), dimensions, settings)
    needed = _needed(home, left)
    later = functools.partial(_needed_later, home, row.name)
    runner = SweepRun(home, row, queue, parallel=settings.parallel, watch=watch, later=later)
    return Prepared(Planned(row, done, estimate=needed), runner)


def _composed_again(home: Home, row: SweepRow, settings: Settings, points: list[SweepPointRow]) -> list[SweepPointRow]:
    """The points of a sweep, those composed that could not be before; what has changed is recorded."""
    lost = [point for point in points if point.status == "failed" and point.config is None]
    if not lost or not Path(row.source).exists():  # else the sweep was started by a program, or its file was moved
        return points
    source = source_of(row.source, settings.search_path)
    fixed, dimensions = split_overrides(row.overrides, source.experiment)
    keys = {one.key.lstrip("+"): one.key for one in dimensions}
    made = Maker(row.name, source, fixed, points)
    is_composed = [made.add_again(point, {keys[key]: value for key, value in point.choices.items()}) for point in lost]
    if any(is_composed):
        for baseline in dict.fromkeys(settings.baselines):
            made.add_baseline(baseline, home.data)
    with open_store(home) as store:
        for before, point in itertools.zip_longest(points, made.points):  # new ones are at the end
            if point != before:
                store.sweeps.record_point(point)
    return made.points


def _name_for(home: Home, given: str | None, usual: Callable[[], str]) -> str:
    """The name that is given; else the usual one, with a number if there is a sweep of that name."""
    known: list[str] = []
    if home.state_db.exists():
        with open_store(home) as store:  # one of an older fedpkg is migrated
            known = store.sweeps.names()
    if given is not None:
        if check_name(given) in known:
            raise SessionError(
                f"there is a sweep '{given}' in {home.root} already",
                hint=f"continue it with `fedpkg experiment resume {given}`, or give this one another --name",
                sweep=given,
            )
        return given
    wanted = usual()[:70].strip(".")
    name, number = wanted, 1
    while name in known:
        number += 1
        name = f"{wanted}-{number}"
    return check_name(name)


def _first_name(source: Source, fixed: Sequence[str], dimensions: Sequence[Dimension], settings: Settings) -> str:
    """The name in the first configuration that can be composed, of a few."""
    kind = "random" if settings.kind == "search" else settings.kind
    chosen: Chosen
    for chosen, _ in zip(points(dimensions, kind, number=1, seed=settings.seed), range(3), strict=False):
        try:
            return source.compose([*fixed, *as_overrides(chosen, is_hydra=source.is_hydra)]).name
        except FedpkgError:
            continue
    return "sweep"


def _needed(home: Home, rows: Sequence[SweepPointRow]) -> Estimate | None:
    """The estimate for the points that are left. Raises StoreError: the disk cannot hold them."""
    left = [msgspec.convert(point.config, RunConfig) for point in rows if point.config and point.status != "finished"]
    if not left:
        return None
    known = known_of(left[0], None)
    if home.state_db.exists():
        with open_store(home, read_only=True) as store:
            known = known_of(left[0], store)
    needed = total([estimate(config, known) for config in left])
    check_disk(home, needed, f"the sweep of {len(left)} point{'s' * (len(left) > 1)}")
    return needed


def _needed_later(home: Home, name: str) -> Estimate | None:
    """As `_needed`, when the first point has told the size of the model and the time of a round."""
    with open_store(home, read_only=True) as store:
        kind, rows = store.sweeps.get(name).kind, store.sweeps.points(name)
    return None if kind == "search" else _needed(home, rows)  # the later points of a search are not known


def _search(home: Home, made: Maker, dimensions: Sequence[Dimension], settings: Settings) -> Points:
    from fedpkg.experiments.search import Search

    def rounds_of(session_id: str) -> Sequence[RoundRow]:
        with open_store(home, read_only=True) as store:
            return store.list_rounds(session_id)

    return Search(made, dimensions, settings, rounds_of)


def _options(settings: Settings) -> dict[str, Any]:
    return {key: value for key, value in asdict(settings).items() if key != "kind"}


def _settings_of(row: SweepRow, parallel: int | None) -> Settings:
    lists = {key: tuple(row.options.get(key, ())) for key in ("baselines", "search_path")}
    options = {**row.options, **lists}
    return Settings(kind=row.kind, **(options if parallel is None else {**options, "parallel": parallel}))
