"""A strategy's state as JSON: its weights become model files in the store, named by their digests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fedpkg.weights.weights import Weights

_MARK = "$weights"


def encode(state: Any, put: Callable[[Weights], str]) -> Any:
    """Replace every `Weights` in plain data by ``{"$weights": digest}``, where ``put`` stores them."""
    if isinstance(state, Weights):
        return {_MARK: put(state)}
    if isinstance(state, Mapping):
        return {str(key): encode(value, put) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [encode(value, put) for value in state]
    if state is None or isinstance(state, (bool, int, float, str)):
        return state
    raise TypeError(f"a strategy's state is data; it cannot hold a {type(state).__name__}")


def decode(data: Any, get: Callable[[str], Weights]) -> Any:
    """The inverse of `encode`."""
    if isinstance(data, Mapping):
        if set(data) == {_MARK}:
            return get(data[_MARK])
        return {key: decode(value, get) for key, value in data.items()}
    if isinstance(data, list):
        return [decode(value, get) for value in data]
    return data
