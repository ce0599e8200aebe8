"""Records: named sets of arrays and a JSON document in one file (docs/reference/records.md defines its layout)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO
from urllib.parse import quote, unquote

from fedpkg.client import arrays
from fedpkg.client.errors import ClientError
from fedpkg.client.models import Path, number, write_json

_JSON, _EMPTY = "%json", "%empty"
_MOST_TENSORS = 1 << 16


@dataclass(frozen=True)
class Records:
    """Arrays (NumPy) or tensors (PyTorch) by the name of their set and their own name, and any JSON."""

    sets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    data: Any = None


def load_records(path: Path, part: tuple[int, int] | None = None) -> Records:
    """Read records as NumPy arrays; those with a dtype that NumPy does not have (bfloat16) are tensors.

    ``part`` is the offset and length of a part of the file that has them.

    Raises:
        ClientError: If the file cannot be read, or does not contain records.
    """
    found = open_records(path, part)
    return Records(
        {name: {key: _as_array(value) for key, value in one.items()} for name, one in found.sets.items()}, found.data
    )


def open_records(path: Path, part: tuple[int, int] | None = None) -> Records:
    """Records whose arrays are `fedpkg.client.arrays.Plain`: read-only, and mapped if the file is large.

    Raises:
        ClientError: As `load_records`.
    """
    path = os.fspath(path)
    found = arrays.open_file(path, part)
    if len(found) > _MOST_TENSORS:
        raise ClientError(f"{path}: does not contain records: it has more than {_MOST_TENSORS} tensors")
    try:
        data = json.loads(bytes(found.pop(_JSON).values)) if _JSON in found else None
        sets: dict[str, dict[str, Any]] = {}
        for key, array in found.items():
            name, tensor_name = key.split("/")
            one = sets.setdefault(unquote(name, errors="strict"), {})
            if tensor_name != _EMPTY:
                one[unquote(tensor_name, errors="strict")] = array
    except (ValueError, TypeError, RecursionError) as error:
        raise ClientError(f"{path}: does not contain records: {error}") from error
    return Records(sets, data)


def save_records(
    path: Path,
    sets: Mapping[str, Mapping[str, Any]] | None = None,
    data: Any = None,
    *,
    num_examples: float | None = None,
    **metadata: Any,
) -> None:
    """Write records, and their metadata file. Names may be any text; plain numbers count as arrays.

    Args:
        sets: Arrays or tensors by the name of their set and their own name.
        data: Any JSON; tensors with one element become numbers.
        num_examples: The weight of the reply; default: 1.

    Raises:
        ClientError: If a value is not an array of numbers, or cannot be written as JSON.
    """
    path = os.fspath(path)
    write_records(path, Records(sets or {}, data))
    if num_examples is not None:
        metadata = {"num_examples": num_examples, **metadata}
    if metadata:
        write_json(path + "-metadata", metadata)


def write_records(path: str, records: Records) -> None:
    """Write records without metadata; see `save_records`."""
    arrays.write(path, _named(records, path))


def write_records_to(file: BinaryIO, records: Records, *, suffix: str) -> None:
    """Write records to an open file, as .npz or .safetensors."""
    arrays.write_to(file, _named(records, "records"), suffix=suffix)


def _named(records: Records, path: str) -> dict[str, Any]:
    import numpy as np

    try:
        text = json.dumps(records.data, default=number, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ClientError(f"{path}: the data of records cannot be written as JSON: {error}") from error
    if sum(max(len(one), 1) for one in records.sets.values()) >= _MOST_TENSORS:
        raise ClientError(f"{path}: records can have fewer than {_MOST_TENSORS} tensors; these have more")
    found: dict[str, Any] = {_JSON: np.frombuffer(text, np.uint8)}
    for name, one in records.sets.items():
        if not one:
            found[f"{_encoded(name)}/{_EMPTY}"] = np.zeros(0, np.uint8)
        found.update({f"{_encoded(name)}/{_encoded(key)}": array for key, array in one.items()})
    return found


def _encoded(name: str) -> str:
    try:
        return quote(name, safe="")
    except UnicodeEncodeError as error:
        raise ClientError(f"{name!r:.100} cannot be a name in records: it is not valid Unicode") from error


def _as_array(one: arrays.Plain) -> Any:
    return one.copy().tensor() if one.dtype in arrays.BITS else one.copy().values
