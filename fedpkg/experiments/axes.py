"""The axes of a sweep: keys with several values, in hydra's grammar of overrides, and the points that they span.

Nothing here is as large as the sweep: points are drawn or counted through one after the other.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from fedpkg.compute_package.arguments import in_hydra
from fedpkg.errors import ConfigError
from fedpkg.experiments.overrides import parse

if TYPE_CHECKING:
    from hydra.core.override_parser.types import IntervalSweep, Override

    from fedpkg.experiments.folders import ExperimentFolder
    from fedpkg.stores.base import SweepKind
    from fedpkg.types import Json

MAX_POINTS = 1000  # of a sweep, unless --max-points gives another number


@dataclass(frozen=True)
class Axis:
    """A key and its values, in order."""

    key: str
    choices: Sequence[Json]


@dataclass(frozen=True)
class Interval:
    """A key with values between ``low`` and ``high``: whole numbers if both are; ``log``: uniform in the logarithm."""

    key: str
    low: float
    high: float
    log: bool = False

    @property
    def is_whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def draw(self, rng: random.Random) -> float:
        if self.is_whole and not self.log:
            return rng.randint(int(self.low), int(self.high))
        if self.log:
            value = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
            return round(value) if self.is_whole else value
        return rng.uniform(self.low, self.high)


Dimension: TypeAlias = "Axis | Interval"
Chosen: TypeAlias = "dict[str, Json]"


class Range(Sequence[float]):
    """The numbers of a ``range(start, stop, step)``, made when they are read."""

    def __init__(self, start: float, stop: float, step: float) -> None:
        from decimal import Decimal

        self._is_whole = all(isinstance(one, int) for one in (start, stop, step))
        self._start, self._step = Decimal(str(start)), Decimal(str(step))
        self._length = max(0, math.ceil((Decimal(str(stop)) - self._start) / self._step)) if step else 0

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        value = self._start + self._step * (place % len(self))
        return int(value) if self._is_whole else float(value)


def split_overrides(
    overrides: Sequence[str], experiment: ExperimentFolder | None = None
) -> tuple[list[str], list[Dimension]]:
    """Separate the overrides with one value from those with several: ``lr=0.1,0.01``, ``seed=range(5)``.

    Args:
        experiment: Where the overrides are for a run.yaml (None), those of one value are in its own grammar.

    Raises:
        ConfigError: An override of several values is not in hydra's grammar, or has no value, or a key has two.
    """
    fixed: list[str] = []
    found: list[Dimension] = []
    for text in overrides:
        _, equals, value = text.partition("=")
        if experiment is None and (not equals or not any(sign in value for sign in ",(")):
            fixed.append(text)
            continue
        (override,) = parse([text])
        if not override.is_sweep_override():
            fixed.append(text)
            continue
        dimension = _dimension(override, text, experiment)
        if any(one.key == dimension.key for one in found):
            raise ConfigError(f"on the command line: '{dimension.key}' has two lists of values", key=dimension.key)
        found.append(dimension)
    return fixed, found


def _dimension(override: Override, text: str, experiment: ExperimentFolder | None) -> Dimension:
    from hydra.core.override_parser.types import IntervalSweep, RangeSweep

    key, sweep = override.get_key_element(), override.value()
    if isinstance(sweep, IntervalSweep):
        return _interval(key, sweep)
    choices: Sequence[Json]
    if isinstance(sweep, RangeSweep) and not sweep.shuffle:
        assert sweep.start is not None and sweep.stop is not None
        if not sweep.step:
            raise ConfigError(f"on the command line: '{text}': the step of a range cannot be 0", key=key)
        choices = Range(sweep.start, sweep.stop, sweep.step)
    else:
        override.config_loader = _Options(experiment)  # type: ignore[assignment]  # all of a loader that glob(…) uses
        choices = [override._convert_value(one) for one in override.sweep_iterator()]
    if not len(choices):
        raise ConfigError(f"on the command line: '{text}' has no value", hint=_hint(override, experiment), key=key)
    return Axis(key, choices)


def _interval(key: str, sweep: IntervalSweep) -> Interval:
    assert sweep.start is not None and sweep.end is not None
    is_log = "log" in sweep.tags
    if sweep.start >= sweep.end or (is_log and sweep.start <= 0):
        raise ConfigError(
            f"on the command line: the interval of '{key}' is empty" + " or not above 0" * is_log,
            hint=f"for example {key}=interval(0.001,0.1), or {key}=tag(log,interval(0.001,0.1))",
            key=key,
        )
    return Interval(key, sweep.start, sweep.end, is_log)


def _hint(override: Override, experiment: ExperimentFolder | None) -> str:
    group = override.key_or_group
    if "glob(" not in str(override.input_line):
        return "a range ends before its second number"
    if experiment is None:
        return "only the groups of an experiment's folder have options that glob(…) finds"
    if options := experiment.options(group):
        return f"the options of '{group}' are {', '.join(options)}"
    return f"there is no group '{group}' in {experiment.looked_in()}"


class _Options:
    def __init__(self, experiment: ExperimentFolder | None) -> None:
        self.experiment = experiment

    def get_group_options(self, group_name: str, results_filter: Any = None) -> list[str]:
        return [] if self.experiment is None else self.experiment.options(group_name)


def as_overrides(chosen: Mapping[str, Json], *, is_hydra: bool) -> list[str]:
    """The choices of a point as overrides of a run.yaml or of an experiment's folder."""
    written = functools.partial(in_hydra, interpolates=True) if is_hydra else json.dumps
    return [f"{key}={written(value)}" for key, value in chosen.items()]


def count_points(dimensions: Sequence[Dimension], kind: SweepKind, number: int | None) -> int:
    """The number of points of a sweep.

    Raises:
        ConfigError: the axes do not suit the kind of the sweep.
    """
    axes = [one for one in dimensions if isinstance(one, Axis)]
    if kind in ("grid", "zip") and (intervals := [one for one in dimensions if isinstance(one, Interval)]):
        raise ConfigError(
            f"'{intervals[0].key}' has an interval of values, and a {kind} needs a list of them",
            hint="draw from it with --random N or --search N",
            key=intervals[0].key,
        )
    if kind == "zip" and len({len(one.choices) for one in axes}) > 1:
        lengths = ", ".join(f"{one.key}: {len(one.choices)}" for one in axes)
        raise ConfigError(
            f"--zip needs the same number of values for each key; there are {lengths}",
            hint="leave --zip out to combine each value with each other one",
        )
    if kind == "zip":
        return len(axes[0].choices) if axes else 1
    every = math.prod(len(one.choices) for one in axes)
    if kind == "grid":
        return every
    if not dimensions:
        raise ConfigError(f"a {kind} sweep needs a key with several values", hint="for example seed=range(100)")
    assert number is not None
    return number if kind == "search" or len(axes) < len(dimensions) else min(number, every)


def check_number(number: int, max_points: int) -> None:
    """Raises ConfigError: there are more points than a sweep may have."""
    if number > max_points:
        raise ConfigError(
            f"the sweep has {number:,} points, and at most {max_points:,} are allowed",
            hint=f"give --max-points {number} if they are meant; or draw some of them with --random N",
            points=number,
            max_points=max_points,
        )


def points(
    dimensions: Sequence[Dimension], kind: SweepKind, *, number: int | None = None, seed: int = 0
) -> Iterator[Chosen]:
    """The points of a grid, a zip or a random sweep; in a grid, the last axis changes fastest.

    A random sweep of lists draws different points (in the order of the draws). ``seed`` decides its draws.
    """
    axes = [one for one in dimensions if isinstance(one, Axis)]
    if kind == "random":
        yield from _drawn(dimensions, count_points(dimensions, kind, number), random.Random(seed))
        return
    columns = [one.choices for one in axes]
    rows: Iterable[tuple[Json, ...]] = itertools.product(*columns)
    if kind == "zip" and columns:
        rows = zip(*columns, strict=True)
    for row in rows:
        yield {one.key: choice for one, choice in zip(axes, row, strict=True)}


def _drawn(dimensions: Sequence[Dimension], number: int, rng: random.Random) -> Iterator[Chosen]:
    axes = [one for one in dimensions if isinstance(one, Axis)]
    every = math.prod(len(one.choices) for one in axes)
    has_interval = len(axes) < len(dimensions)
    places = (rng.randrange(every) for _ in range(number)) if has_interval else rng.sample(range(every), number)
    for place in places:
        chosen: Chosen = {}
        for one in reversed(dimensions):
            if isinstance(one, Interval):
                chosen[one.key] = one.draw(rng)
            else:
                place, here = divmod(place, len(one.choices))
                chosen[one.key] = one.choices[here]
        yield {one.key: chosen[one.key] for one in dimensions}
