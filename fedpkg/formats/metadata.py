"""The JSON beside a model file (``<model>-metadata``), and metrics; standard library only."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from fedpkg.errors import ModelFileError
from fedpkg.files import atomic_write, read_bounded
from fedpkg.types import Json

MAX_BYTES = 16 << 20
MAX_DEPTH = 64
"""Levels of lists and objects: enough for users, and far below the recursion limit of any reader or writer."""
MIN_EXAMPLES, MAX_EXAMPLES = 2.0**-53, 2**53
"""Above 2**53, float64 cannot represent every integer; fractions are allowed as weights, but must not vanish."""


def metadata_path(model_path: Path) -> Path:
    """``update.npz-metadata`` for ``update.npz``."""
    return model_path.with_name(f"{model_path.name}-metadata")


def read_metadata(model_path: Path, *, max_bytes: int = MAX_BYTES) -> dict[str, Json]:
    """The JSON object beside a model file. ``NaN`` and ``Infinity``, which Python's json writes, become floats.

    Raises:
        ModelFileError: If it does not exist, is too big, or is not a JSON object.
    """
    path = metadata_path(model_path)
    metadata = read_metrics(path, max_bytes=max_bytes)
    if not isinstance(metadata, dict):
        raise ModelFileError(f"{path}: must be a JSON object, not {_kind(metadata)}", path=str(path))
    return metadata


def read_metrics(path: Path, *, max_bytes: int = MAX_BYTES) -> Json:
    """Any JSON from a file.

    Raises:
        ModelFileError: If it does not exist, or is not a regular file, too big, nested too deeply, or not UTF-8 JSON.
    """
    try:
        content = read_bounded(path, max_bytes)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror}", path=str(path)) from error
    return parse_json(content, str(path))


def parse_json(content: bytes, where: str) -> Json:
    """Any JSON; messages call it ``where``.

    Raises:
        ModelFileError: If it is too big, nested too deeply, or not UTF-8 JSON.
    """
    if len(content) > MAX_BYTES:
        raise ModelFileError(f"{where}: has {len(content)} bytes of JSON; at most {MAX_BYTES} are allowed", path=where)
    if _is_deep(content):
        raise ModelFileError(f"{where}: is nested too deeply (more than {MAX_DEPTH} levels)", path=where)
    try:
        value: Json = json.loads(content.decode())
    except UnicodeDecodeError as error:
        raise ModelFileError(f"{where}: is not UTF-8 text", path=where) from error
    except ValueError as error:
        raise ModelFileError(f"{where}: is not JSON: {error}", path=where) from error
    return value


def dump_json(value: Json) -> bytes:
    """JSON that `parse_json` accepts; equal values give equal bytes.

    Raises:
        ModelFileError: If the value is not JSON, too big, or nested too deeply.
    """
    try:
        content = json.dumps(value, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelFileError(f"the value cannot be written as JSON: {error}") from error
    if len(content) > MAX_BYTES or _is_deep(content):
        raise ModelFileError(f"JSON may have at most {MAX_BYTES} bytes and {MAX_DEPTH} levels; this value has more")
    return content


_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)  # also an unterminated one: linear time
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def _is_deep(text: bytes) -> bool:
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return False
    depth = 0
    for bracket in _STRING.sub(b"", text).translate(None, _ALL_BUT_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            return True
    return False


def write_metadata(model_path: Path, metadata: dict[str, Json], *, durable: bool = False) -> None:
    """Write the JSON object beside a model file atomically."""
    with atomic_write(metadata_path(model_path), durable=durable) as file:
        file.write(json.dumps(metadata).encode())


def num_examples(metadata: Mapping[str, Json], *, may_be_zero: bool = False) -> float:
    """The number of examples that a client trained on, or computed its metrics on: its weight in the mean.

    ``may_be_zero``: for metrics, so that a client without test data can report them, with weight 0.

    Raises:
        ModelFileError: If it is missing, or not a finite number above zero (and within 2**-53 … 2**53).
    """
    hint = 'write {"num_examples": N}, with N the number of training examples, to the metadata file of the update'
    if "num_examples" not in metadata:
        raise ModelFileError("num_examples is missing in the metadata", hint=hint)
    value = metadata["num_examples"]
    if isinstance(value, bool) or not isinstance(value, int | float):
        shown = json.dumps(value)[:80]
        raise ModelFileError(f"num_examples must be a number, not {_kind(value)}: {shown}", hint=hint)
    if value != value:
        raise ModelFileError("num_examples is NaN", hint=hint)
    if value == 0:
        if may_be_zero:
            return 0.0
        raise ModelFileError("num_examples is zero", hint=hint)
    if value < 0:
        raise ModelFileError(f"num_examples is negative: {_short(value)}", hint=hint)
    if value > MAX_EXAMPLES:
        raise ModelFileError(f"num_examples is too big: {_short(value)}", hint=hint)
    if value < MIN_EXAMPLES:
        raise ModelFileError(f"num_examples is too small: {_short(value)}", hint=hint)
    return float(value)


def examples_said(*places: Json | Mapping[str, Json]) -> float | None:
    """``num_examples`` in the first of these that has it; None if none does. It may be 0.

    Raises:
        ModelFileError: If it cannot be used as a weight.
    """
    for place in places:
        if isinstance(place, Mapping) and "num_examples" in place:
            return num_examples(place, may_be_zero=True)
    return None


def _short(value: int | float) -> str:
    return str(value) if isinstance(value, float) or abs(value) < 10**20 else "a number of more than 20 digits"


def _kind(value: Json) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")
