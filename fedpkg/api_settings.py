"""Arguments of FEDn's ``start_session`` as sections of a run.yaml."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import Any

from fedpkg.errors import ConfigError
from fedpkg.fedn.aggregators import strategy_of
from fedpkg.stores.uploads import Uploads
from fedpkg.types import Json

# FEDn's server puts this import before the source of a class.
_HOOKS = "from fedn.network.combiner.hooks.allowed_import import *\n\n\n"


def strategy_section(aggregator: str, kwargs: Mapping[str, Any] | str | None) -> dict[str, Json]:
    """The strategy for an aggregator and its parameters; the parameters may be a JSON string.

    Raises:
        ConfigError: the parameters are not a mapping.
    """
    try:
        return strategy_of(aggregator, dict(json.loads(kwargs) if isinstance(kwargs, str) else kwargs or {}))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"aggregator_kwargs must be a mapping, or a JSON string of one, not {kwargs!r}") from error


def in_order_of_today(words: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments of ``start_session`` by position, in the order since FEDn 0.10.

    Up to 0.9 there was no ``aggregator_kwargs``: the third argument was the id of a model, or None before a time limit.
    """
    third, fourth = (*words[2:4], None, None)[:2]
    is_model = isinstance(third, str) and not third.lstrip().startswith("{")
    is_former = is_model or (third is None and isinstance(fourth, (int, float)))
    return (*words[:2], None, *words[2:]) if is_former else words


def server_functions_section(server_functions: type, uploads: Uploads) -> dict[str, Json]:
    """The strategy for a class of server functions; a copy of its source is kept.

    Raises:
        ConfigError: its source cannot be read.
    """
    try:
        source = inspect.getsource(server_functions)
    except (OSError, TypeError) as error:
        raise ConfigError(f"the source of {server_functions!r} cannot be read", hint="put it in a file") from error
    return {"server_functions": str(uploads.keep_text(_HOOKS + source, "server_functions.py"))}


def buffer_section(size: int, num_clients: int) -> dict[str, Json]:
    """``round_buffer_size``: each round asks all clients, and uses the first ``size`` replies."""
    if size < 1:
        return {}
    return {"sampler": {"name": "uniform", "count": size, "over_selection": max(0.0, num_clients / size - 1)}}
