"""A strategy's state as JSON: its weights become model files in the store, named by their digests (and buffers)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedpkg.errors import SessionFailed
from fedpkg.stores.base import WEIGHTS_MARK
from fedpkg.weights.records import Records
from fedpkg.weights.weights import Weights

_BUFFERS = "buffers"
_RECORDS_MARK = "$records"


def check_state(state: object, what: str, *, has_model: bool) -> None:
    """Raises SessionFailed: it is no state of a strategy, whoever made it."""
    if not isinstance(state, dict) or (has_model and not isinstance(state.get("model"), Weights)):
        keys = f" with {', '.join(map(repr, state))}" if isinstance(state, dict) else ""
        needed = "a dict with a 'model'" if has_model else "a dict"
        raise SessionFailed(f"{what}, {needed}, not a {type(state).__name__}{keys}")
    encode(state, lambda weights: ("", ()))


def no_weights(weights: Weights) -> tuple[str, Sequence[str]]:
    """For `encode`, where there can be none."""
    raise SessionFailed("a step's metrics are JSON; they cannot hold Weights", hint="keep Weights in the state")


def encode(state: Any, put: Callable[[Weights], tuple[str, Sequence[str]]]) -> Any:
    """Replace every `Weights` in plain data by ``{"$weights": digest}``, and ``"buffers"`` if there are any.

    `Records` become their sets and their JSON. ``put`` stores weights; it says the digest, and how the buffers are
    called in the file.

    Raises:
        SessionFailed: something in it is no data.
    """
    if isinstance(state, Weights):
        digest, buffers = put(state)
        return {WEIGHTS_MARK: digest, **({_BUFFERS: list(buffers)} if buffers else {})}
    if isinstance(state, Records):
        sets = [[name, encode(weights, put) if weights else None] for name, weights in state.sets.items()]
        return {_RECORDS_MARK: sets, "data": json.dumps(state.data)}
    if isinstance(state, Mapping):
        return {str(key): encode(value, put) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [encode(value, put) for value in state]
    if state is None or isinstance(state, (bool, int, float, str)):
        return state
    raise SessionFailed(
        f"a strategy's state and metrics are data; they cannot hold a {type(state).__name__}",
        hint="keep Weights, Records, numbers, text, and lists and dicts of them",
    )


def decode(data: Any, get: Callable[[str, Sequence[str]], Weights]) -> Any:
    """The inverse of `encode`."""
    if isinstance(data, Mapping):
        if WEIGHTS_MARK in data:
            return get(data[WEIGHTS_MARK], data.get(_BUFFERS, ()))
        if _RECORDS_MARK in data:
            found = ((name, Weights({}) if one is None else decode(one, get)) for name, one in data[_RECORDS_MARK])
            return Records(dict(found), json.loads(data["data"]))
        return {key: decode(value, get) for key, value in data.items()}
    if isinstance(data, list):
        return [decode(value, get) for value in data]
    return data
