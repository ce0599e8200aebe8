"""A run's configuration, with the sections checked whose keys depend on a name in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from fedpkg.config import RunConfig
from fedpkg.config_reading import LoadedConfig, load_config
from fedpkg.config_shape import Places


def load(path: Path, overrides: Sequence[str] = ()) -> LoadedConfig:
    """A run.yaml with everything in it checked, also what a strategy's name lets its section hold.

    Raises:
        ConfigError: see `fedpkg.config_reading.load_config`.
    """
    return load_config(path, overrides, resolve=resolved)


def resolved(config: RunConfig, places: Places) -> RunConfig:
    """A configuration with the sections checked and completed whose keys depend on a name in them.

    Raises:
        ConfigError: there is no such name, parameter or value.
    """
    from fedpkg.samplers import resolve_sampler
    from fedpkg.strategies import resolve_strategy

    strategy, sampler = resolve_strategy(config.strategy, places), resolve_sampler(config.sampler, places)
    return msgspec.structs.replace(config, strategy=strategy, sampler=sampler)
