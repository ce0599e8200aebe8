"""Records: named sets of arrays and a JSON document in one file (docs/reference/records.md defines its layout)."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

from fedpkg.client import arrays
from fedpkg.client.errors import ClientError
from fedpkg.client.models import Path, number, write_json

_JSON, _EMPTY = "%json", "%empty"


@dataclass(frozen=True)
class Records:
    """Arrays (NumPy) or tensors (PyTorch) by the name of their set and their own name, and any JSON."""

    sets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    data: Any = None


def load_records(path: Path) -> Records:
    """Read records as NumPy arrays; those with a dtype that NumPy does not have (bfloat16) are tensors.

    Raises:
        ClientError: If the file cannot be read, or does not contain records.
    """
    path = os.fspath(path)
    found = _read(path)
    try:
        data = json.loads(bytes(found.pop(_JSON))) if _JSON in found else None
        sets: dict[str, dict[str, Any]] = {}
        for key, array in found.items():
            name, tensor_name = key.split("/")
            one = sets.setdefault(unquote(name), {})
            if tensor_name != _EMPTY:
                one[unquote(tensor_name)] = array
    except (ValueError, TypeError) as error:
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
    import numpy as np

    try:
        text = json.dumps(records.data, default=number, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ClientError(f"{path}: the data of records cannot be written as JSON: {error}") from error
    found: dict[str, Any] = {_JSON: np.frombuffer(text, np.uint8)}
    for name, one in records.sets.items():
        if not one:
            found[f"{quote(name, safe='')}/{_EMPTY}"] = np.zeros(0, np.uint8)
        found.update({f"{quote(name, safe='')}/{quote(key, safe='')}": array for key, array in one.items()})
    arrays.write(path, found)


def _read(path: str) -> dict[str, Any]:
    import numpy as np

    try:
        with open(path, "rb") as file:
            if file.read(4) != b"PK\3\4":
                return {key: _as_array(tensor) for key, tensor in arrays.read(path).items()}
            found = {}
            with zipfile.ZipFile(file) as archive:  # np.load removes the '.npy' of 'x.npy'
                for info in archive.infolist():
                    with archive.open(info) as member:
                        array = np.lib.format.read_array(member, allow_pickle=False)
                    found[info.filename[: -len(".npy")]] = array
            return found
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ClientError(f"{path}: cannot be read: {type(error).__name__}: {error}") from error


def _as_array(tensor: Any) -> Any:
    try:
        return tensor.numpy()
    except TypeError:  # a dtype that NumPy does not have
        return tensor
