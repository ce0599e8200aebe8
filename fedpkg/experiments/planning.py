"""Plan a sweep: compose the configuration of every point before the first one runs."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from fedpkg.config import RunConfig, dump_config
from fedpkg.errors import ConfigError, FedpkgError
from fedpkg.experiments.axes import MAX_POINTS, Chosen, Dimension, as_overrides, check_number, count_points, points
from fedpkg.experiments.baselines import Baseline, baseline_configs
from fedpkg.stores.base import SweepPointRow

if TYPE_CHECKING:
    from fedpkg.experiments.folders import ExperimentFolder
    from fedpkg.stores.base import SweepKind

Compose: TypeAlias = Callable[[Sequence[str]], RunConfig]
_ABSENT = object()
_LONGEST_NAME = 80  # a session's name is that of the sweep with the number of the point


@dataclass(frozen=True)
class Source:
    """What a sweep varies: a run.yaml or the folder of an experiment.

    Args:
        name: its path, for people.
        compose: the configuration with these overrides. Raises FedpkgError.
        experiment: the folder of an experiment, whose overrides are in hydra's grammar; None: a run.yaml.
    """

    name: str
    compose: Compose
    experiment: ExperimentFolder | None = None

    @property
    def is_hydra(self) -> bool:
        return self.experiment is not None


def source_of(path: Path | str, search_path: Sequence[Path | str] = ()) -> Source:
    """The source at a path: the folder of an experiment, or a run.yaml.

    Raises:
        ConfigError: it is an experiment whose root file or search path is wrong.
    """
    from fedpkg.experiments.folders import ROOTS, ExperimentFolder
    from fedpkg.session import configuration

    where = Path(path).absolute()
    if where.is_dir() or where.name == ROOTS[0]:
        from fedpkg.experiments.composing import compose

        experiment = ExperimentFolder(where, search_path)
        return Source(str(where), lambda overrides: compose(experiment, overrides).config, experiment)
    return Source(str(where), lambda overrides: configuration.load(where, overrides).config)


@dataclass(frozen=True)
class Settings:
    """How the points of a sweep are chosen and run; they are kept in its row.

    Args:
        number: of points, if the kind is random or search.
        seed: of the draws of a random sweep or a search.
        parallel: the number of points that run at the same time.
        baselines: added for every configuration of the sweep.
        metric: of a search, which maximises it unless ``minimise``.
        search_path: more folders with groups of an experiment.
        prune: whether a search stops points that are worse than the median of the others at the same round.
    """

    kind: SweepKind = "grid"
    number: int | None = None
    seed: int = 0
    parallel: int = 1
    max_points: int = MAX_POINTS
    baselines: tuple[Baseline, ...] = ()
    metric: str | None = None
    minimise: bool = False
    prune: bool = False
    search_path: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises ConfigError: a setting is missing, or has no effect on this kind of sweep."""
        is_drawn, is_search = self.kind in ("random", "search"), self.kind == "search"
        if self.parallel < 1 or (is_drawn and (self.number or 0) < 1):
            raise ConfigError(f"a {self.kind} sweep needs a number of points from 1, and parallel from 1", key="number")
        if is_search and self.metric is None:
            raise ConfigError("a search needs a metric to maximise", hint="for example test_accuracy", key="metric")
        if not is_search and (self.metric is not None or self.minimise or self.prune):
            raise ConfigError(f"metric, minimise and prune have no effect on a {self.kind} sweep", key="metric")
        if is_search and self.baselines:
            raise ConfigError(
                "a search has no baselines, as its points are not known before", hint="sweep again with a grid"
            )


@dataclass(frozen=True)
class Plan:
    """The points of a sweep. Points with the configuration of an earlier one are left out: ``num_repeated``."""

    points: list[SweepPointRow]
    num_repeated: int = 0


def check_name(name: str) -> str:
    """Raises ConfigError: it cannot be the name of a sweep."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name) or len(name) > _LONGEST_NAME:
        raise ConfigError(
            f"'{name}' cannot be the name of a sweep",
            hint=f"use at most {_LONGEST_NAME} letters, digits, '.', '_' and '-', not beginning with '.' or '-'",
            key="name",
        )
    return name


def plan(
    sweep: str,
    source: Source,
    fixed: Sequence[str],
    dimensions: Sequence[Dimension],
    settings: Settings,
    *,
    cache: Path,
) -> Plan:
    """The points of a sweep, with their baselines after them. A point that cannot be composed is one that failed.

    Raises:
        ConfigError: there are too many points.
        FedpkgError: no point can be composed; the error of the first one.
    """
    number = count_points(dimensions, settings.kind, settings.number)
    check_number(number, settings.max_points)
    made = Maker(sweep, source, fixed)
    errors: list[FedpkgError] = []
    for chosen in points(dimensions, settings.kind, number=settings.number, seed=settings.seed):
        try:
            made.add(chosen)
        except FedpkgError as error:
            errors.append(error)
            made.add_failed(chosen, error)
    if errors and len(errors) == len(made.points):
        raise errors[0]
    for baseline in dict.fromkeys(settings.baselines):
        made.add_baseline(baseline, cache)
        check_number(len(made.points), settings.max_points)
    return Plan(made.points, made.num_repeated)


class Maker:
    """Makes points with numbers, each configuration once."""

    def __init__(self, sweep: str, source: Source, fixed: Sequence[str], known: Iterable[SweepPointRow] = ()) -> None:
        self.sweep, self.source, self.fixed = sweep, source, tuple(fixed)
        self.points: list[SweepPointRow] = list(known)
        self.num_repeated = 0
        self._by_digest = {point.digest: place for place, point in enumerate(self.points) if point.digest}

    def add(self, chosen: Chosen) -> SweepPointRow:
        """The point with these choices; an earlier one, if that has the same configuration.

        Raises:
            FedpkgError: its configuration is wrong.
        """
        return self._add(values_of(chosen), self._compose(chosen))

    def add_failed(self, chosen: Chosen, error: FedpkgError) -> SweepPointRow:
        point = SweepPointRow(
            sweep=self.sweep, number=len(self.points), choices=values_of(chosen), status="failed", error=str(error)
        )
        self.points.append(point)
        return point

    def add_again(self, point: SweepPointRow, chosen: Chosen) -> bool:
        """Compose a point again that could not be composed; whether it can be now. Else it has the new error."""
        try:
            config = self._compose(chosen)
            digest = digest_of(config)
            if (place := self._by_digest.get(digest)) is not None:
                raise ConfigError(f"point {place} has the same configuration")
        except FedpkgError as error:
            self.points[point.number] = replace(point, error=str(error))
            return False
        self.points[point.number] = self._made(point.choices, config, digest, point.number)
        self._by_digest[digest] = point.number
        return True

    def add_baseline(self, baseline: Baseline, cache: Path) -> None:
        """A baseline of each configuration. Its choices are those that all configurations with this baseline share.

        Raises:
            ConfigError: a configuration has no such baseline.
        """
        for origin in [point for point in self.points if point.config is not None and not point.baseline]:
            config = msgspec.convert(origin.config, RunConfig)
            for choices, one in baseline_configs(config, baseline, cache=cache):
                before = len(self.points)
                own = {**origin.choices, **choices}
                point = self._add(own, one, baseline)
                if len(self.points) == before:  # another configuration has the same one
                    self.num_repeated -= 1
                    shared = {key: value for key, value in point.choices.items() if own.get(key, _ABSENT) == value}
                    self.points[point.number] = replace(point, choices=shared)

    def _add(self, choices: dict[str, Any], config: RunConfig, baseline: str = "") -> SweepPointRow:
        digest = digest_of(config)
        if (place := self._by_digest.get(digest)) is not None:
            self.num_repeated += 1
            return self.points[place]
        point = self._made(choices, config, digest, len(self.points), baseline)
        self.points.append(point)
        self._by_digest[digest] = point.number
        return point

    def _compose(self, chosen: Chosen) -> RunConfig:
        return self.source.compose([*self.fixed, *as_overrides(chosen, is_hydra=self.source.is_hydra)])

    def _made(
        self, choices: dict[str, Any], config: RunConfig, digest: str, number: int, baseline: str = ""
    ) -> SweepPointRow:
        named = msgspec.structs.replace(config, name=session_name(self.sweep, number))
        return SweepPointRow(
            sweep=self.sweep,
            number=number,
            choices=choices,
            config=dump_config(named),
            digest=digest,
            baseline=baseline,
        )


def session_name(sweep: str, number: int) -> str:
    """The name of a point's session, by which it is found even if the sweep was killed before it was noted."""
    return f"{sweep}.{number}"


def values_of(chosen: Chosen) -> dict[str, Any]:
    return {key.lstrip("+"): value for key, value in chosen.items()}


def digest_of(config: RunConfig) -> str:
    """A digest of all that decides the result of a session: of its configuration without its name."""
    tree = {**dump_config(config), "name": ""}
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
