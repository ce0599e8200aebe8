"""What a script says to FEDn's ``start_session``, as sections of a run.yaml."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import Any

from fedpkg.errors import ConfigError
from fedpkg.fedn.aggregators import strategy_of
from fedpkg.stores.uploads import Uploads
from fedpkg.types import Json

# What FEDn's server has at hand for the source of a class.
_HOOKS = "from fedn.network.combiner.hooks.allowed_import import *\n\n\n"


def strategy_section(aggregator: str, kwargs: Mapping[str, Any] | str | None) -> dict[str, Json]:
    """The strategy of an aggregator and its parameters, which may be JSON.

    Raises:
        ConfigError: they are no mapping.
    """
    try:
        return strategy_of(aggregator, dict(json.loads(kwargs) if isinstance(kwargs, str) else kwargs or {}))
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"aggregator_kwargs is no mapping, and no JSON of one: {kwargs!r}",
            hint="up to FEDn 0.9, the third argument of start_session was another one: write model_id=…, rounds=…",
        ) from error


def server_functions_section(server_functions: type, uploads: Uploads) -> dict[str, Json]:
    """The strategy of a class of server functions; its source is kept.

    Raises:
        ConfigError: its source cannot be read.
    """
    try:
        source = inspect.getsource(server_functions)
    except (OSError, TypeError) as error:
        raise ConfigError(f"the source of {server_functions!r} cannot be read", hint="put it in a file") from error
    return {"server_functions": str(uploads.keep_text(_HOOKS + source, "server_functions.py"))}


def buffer_section(size: int, num_clients: int) -> dict[str, Json]:
    """``round_buffer_size``: all clients are asked, and the first ``size`` replies count."""
    if size < 1:
        return {}
    return {"sampler": {"name": "uniform", "count": size, "over_selection": max(0.0, num_clients / size - 1)}}
