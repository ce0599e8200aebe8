"""Overrides of an experiment (``lr=0.1``, ``+a.b=1``, ``~gone``, ``method=fedavg,scaffold``), parsed by hydra-core."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedpkg.errors import ConfigError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

    from fedpkg.experiments.folders import ExperimentFolder

MAX_VALUES = 1_000_000  # of one axis
EXTRA_HINT = "pip install 'fedpkg[experiments]'"


@dataclass(frozen=True)
class Axis:
    """One word of the command line, and all values that it stands for.

    Args:
        key: Its key or group, with ``+``, ``++`` or ``~`` as typed.
        words: An override for each value, ``lr=0.1``; just one if it does not sweep; none for an interval.
        interval: The bounds of ``interval(a, b)``, which a search draws from.
        is_whole: Whether the interval has whole numbers.
        tags: What ``tag(log, …)`` says about it.
    """

    key: str
    words: tuple[str, ...]
    interval: tuple[float, float] | None = None
    is_whole: bool = False
    tags: frozenset[str] = frozenset()

    @property
    def is_swept(self) -> bool:
        return self.interval is not None or len(self.words) > 1


def axes_of(experiment: ExperimentFolder, overrides: Sequence[str]) -> list[Axis]:
    """The values that each override stands for: ``lr=0.1,0.01``, ``choice(…)``, ``range(…)``, ``glob(…)``.

    Raises:
        ConfigError: An override cannot be parsed, or stands for no value or for more than a million.
    """
    return [_axis(experiment, word, one) for word, one in zip(overrides, parse(overrides), strict=True)]


def points_of(experiment: ExperimentFolder, overrides: Sequence[str]) -> list[list[str]]:
    """The grid of all combinations, each a list of overrides for `compose`; the last one varies first.

    Raises:
        ConfigError: See `axes_of`; or an override is an interval, which has no grid.
    """
    axes = axes_of(experiment, overrides)
    for axis in axes:
        if axis.interval is not None:
            raise ConfigError(
                f"on the command line: '{axis.key}' is an interval, which a grid cannot enumerate",
                hint="list values (0.1,0.01) or a range(start,stop,step); a search draws from an interval",
                key=axis.key,
            )
    return [list(words) for words in itertools.product(*(axis.words for axis in axes))]


def count_of(axes: Sequence[Axis]) -> int:
    """The number of points in the grid."""
    return math.prod(len(axis.words) for axis in axes)


def parse(overrides: Sequence[str]) -> list[Override]:
    """Overrides as hydra parses them. Raises ConfigError."""
    try:
        from hydra.core.override_parser.overrides_parser import OverridesParser
        from hydra.errors import HydraException
    except ModuleNotFoundError as error:
        raise not_installed(error) from error
    parser = OverridesParser.create()
    parsed = []
    for word in overrides:
        try:
            parsed += parser.parse_overrides([word])
        except HydraException as error:
            raise _unparsable(word, str(error)) from error
    return parsed


def not_installed(error: ModuleNotFoundError) -> ConfigError:
    """The error for a missing hydra-core."""
    return ConfigError(f"composing an experiment needs hydra-core, which is not installed ({error})", hint=EXTRA_HINT)


def _unparsable(word: str, said: str) -> ConfigError:
    key, equals, value = word.partition("=")
    if not equals and not key.startswith("~"):
        return ConfigError(f"on the command line: '{word}' is not key=value", hint="for example rounds=3")
    reason = next((line for line in said.splitlines() if line and not line.startswith(("See ", "Error parsing"))), said)
    hint = "quote text with special characters twice: \"key='a, b'\"; lists are [a,b], sections {a:1}"
    if value.count("{") != value.count("}") or value.count("[") != value.count("]"):
        hint = "a bracket is not closed, or the shell has split the word: put it in quotes"
    return ConfigError(f"on the command line: '{word}' cannot be parsed: {reason.strip()}", hint=hint, key=key)


def _axis(experiment: ExperimentFolder, word: str, override: Override) -> Axis:
    from hydra.core.override_parser.types import IntervalSweep, Sweep

    key, value = override.get_key_element(), override.value()
    tags = frozenset(value.tags) if isinstance(value, Sweep) else frozenset()
    if isinstance(value, IntervalSweep):
        bounds = (value.start, value.end)
        assert bounds[0] is not None and bounds[1] is not None
        if bounds[0] > bounds[1]:
            raise ConfigError(f"on the command line: '{word}': an interval begins with its lower bound", key=key)
        is_whole = all(isinstance(bound, int) for bound in bounds)
        return Axis(key, (), interval=(float(bounds[0]), float(bounds[1])), is_whole=is_whole, tags=tags)
    if not override.is_sweep_override():
        return Axis(key, (word,))
    words = tuple(f"{key}={text}" for text in itertools.islice(_values(experiment, override), MAX_VALUES + 1))
    if len(words) > MAX_VALUES:
        raise ConfigError(f"on the command line: '{word}' has more than {MAX_VALUES} values", key=key)
    if not words:
        raise ConfigError(f"on the command line: '{word}' has no value", hint=_none_hint(experiment, override), key=key)
    return Axis(key, tuple(dict.fromkeys(words)), tags=tags)


def _values(experiment: ExperimentFolder, override: Override) -> Iterator[str]:
    from hydra.core.override_parser.types import Transformer
    from hydra.errors import HydraException

    override.config_loader = _Options(experiment)  # type: ignore[assignment]  # all of a loader that glob(…) uses
    try:
        yield from map(str, override.sweep_iterator(transformer=Transformer.str))
    except HydraException as error:  # range(…) with a step of 0
        raise ConfigError(f"on the command line: '{override.input_line}': {error}") from error


def _none_hint(experiment: ExperimentFolder, override: Override) -> str:
    options = experiment.options(override.key_or_group)
    if options:
        return f"the options of '{override.key_or_group}' are {', '.join(options)}"
    return (
        f"there is no group '{override.key_or_group}' in {experiment.looked_in()}"
        if "glob(" in str(override.input_line)
        else "a range ends before its second number"
    )


class _Options:
    def __init__(self, experiment: ExperimentFolder) -> None:
        self.experiment = experiment

    def get_group_options(self, group_name: str, results_filter: Any = None) -> list[str]:
        return self.experiment.options(group_name)
