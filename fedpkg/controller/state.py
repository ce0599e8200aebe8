"""A strategy's state as JSON: its weights become model files in the store, referred to by digests (and buffers)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedpkg.errors import SessionFailed
from fedpkg.stores.base import WEIGHTS_MARK
from fedpkg.strategies.base import not_data
from fedpkg.weights.records import Records
from fedpkg.weights.weights import Weights

_BUFFERS, _RECORDS = "buffers", "records"


def check_state(state: object, what: str, *, has_model: bool) -> None:
    """Raises SessionFailed: it is not a valid state of a strategy."""
    if not isinstance(state, dict) or (has_model and not isinstance(state.get("model"), Weights)):
        keys = f" with {', '.join(map(repr, state))}" if isinstance(state, dict) else ""
        needed = "a dict with a 'model'" if has_model else "a dict"
        raise SessionFailed(f"{what}, {needed}, not a {type(state).__name__}{keys}")
    _check_data(state)


def _check_data(value: object) -> None:
    """Raises SessionFailed: it contains an object that is not data."""
    if other := not_data(value):
        hint = "use Weights, Records, numbers, text, and lists and dicts of them"
        raise SessionFailed(f"a strategy's state and metrics are data; they cannot contain {other}", hint=hint)


def no_weights(weights: Weights | Records) -> tuple[str, Sequence[str]]:
    """A ``put`` for `encode` where weights are not allowed."""
    raise SessionFailed("a step's metrics are JSON; they cannot contain Weights", hint="keep Weights in the state")


def encode(state: Any, put: Callable[[Weights | Records], tuple[str, Sequence[str]]]) -> Any:
    """Replace every `Weights` and `Records` in plain data by ``{"$weights": digest}``, with ``"buffers"`` if any,
    and ``"records"`` for `Records`.

    ``put`` stores them; it returns the digest, and the names of the buffers in the file.

    Raises:
        SessionFailed: it contains an object that is not data.
    """
    _check_data(state)
    return _encoded(state, put)


def _encoded(state: Any, put: Callable[[Weights | Records], tuple[str, Sequence[str]]]) -> Any:
    if isinstance(state, (Weights, Records)):
        digest, buffers = put(state)
        more = {_RECORDS: True} if isinstance(state, Records) else {_BUFFERS: list(buffers)} if buffers else {}
        return {WEIGHTS_MARK: digest, **more}
    if isinstance(state, Mapping):
        return {str(key): _encoded(value, put) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [_encoded(value, put) for value in state]
    return state


def decode(data: Any, get: Callable[[str, Sequence[str]], Weights], get_records: Callable[[str], Records]) -> Any:
    """The inverse of `encode`."""
    if isinstance(data, Mapping):
        if WEIGHTS_MARK in data:
            digest = data[WEIGHTS_MARK]
            return get_records(digest) if data.get(_RECORDS) else get(digest, data.get(_BUFFERS, ()))
        return {key: decode(value, get, get_records) for key, value in data.items()}
    if isinstance(data, list):
        return [decode(value, get, get_records) for value in data]
    return data
