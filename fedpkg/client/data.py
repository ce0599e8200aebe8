"""A client's data as fedpkg split it: its own file, or a reference to its examples in the file of a whole dataset."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

from fedpkg.client.errors import ClientError
from fedpkg.client.models import Path

_MAX_CHARACTERS = 1 << 20  # of a reference


def open_data(path: Path | None = None) -> Mapping[str, Any]:
    """The client's arrays by name: x_train, y_train, and x_validation, x_test … where there are some.

    NumPy arrays from an .npz file or a reference, tensors from a .pt or .safetensors file. With a reference
    (`clients.data.form: references`) the arrays of the source are mapped, and only this client's rows are read, each
    time that an array is looked up.

    Args:
        path: The file. Default: the client's data, FEDN_DATA_PATH.

    Raises:
        ClientError: It cannot be read, or the source of a reference has changed since the split.
    """
    path = os.environ.get("FEDN_DATA_PATH") if path is None else os.fspath(path)
    if not path:
        raise ClientError("there is no data: FEDN_DATA_PATH is not set", "give the path of a file")
    try:
        if path.endswith(".json"):
            return _Referenced(path)
        if path.endswith(".npz"):
            return _members(path)
        if path.endswith(".safetensors"):
            from fedpkg.client import arrays

            return arrays.read(path)
        import torch

        found: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return found
    except ClientError:
        raise
    except Exception as error:  # what NumPy and torch raise on a damaged file is not defined
        raise ClientError(f"{path}: the data cannot be read: {type(error).__name__}: {error}") from error


class _Referenced(Mapping[str, Any]):
    """The arrays that a reference leads to."""

    def __init__(self, path: str) -> None:
        import numpy as np

        reference = _read_reference(path)
        if reference is None:
            raise ClientError(f"{path}: it is not a reference that fedpkg has written")
        folder = os.path.dirname(os.path.realpath(path))
        source = os.path.join(folder, reference["source"])
        check_source(source, reference)
        self._parts = reference["parts"]
        self._index = np.load(os.path.join(folder, reference["index"]), mmap_mode="r")
        self._arrays = _members(source)

    def __getitem__(self, key: str) -> Any:
        kind, _, part = key.partition("_")
        if kind not in ("x", "y") or part not in self._parts:
            raise KeyError(key)
        place = self._parts[part]
        return self._arrays[f"{kind}_{place['of']}"][self._index[place["start"] : place["stop"]]]

    def __iter__(self) -> Iterator[str]:
        return (f"{kind}_{part}" for part in self._parts for kind in ("x", "y"))

    def __len__(self) -> int:
        return 2 * len(self._parts)


def _read_reference(path: str) -> Any:
    """The reference in a file; None: it is other JSON. Raises OSError or ValueError if it is no JSON."""
    with open(path, encoding="utf-8") as file:
        found = json.loads(file.read(_MAX_CHARACTERS))
    return found if isinstance(found, dict) and found.get("fedpkg_reference") == 1 else None


def is_reference(path: Path) -> bool:
    """Whether a client's data is a reference to its examples in the file of a whole dataset."""
    try:
        return os.fspath(path).endswith(".json") and _read_reference(os.fspath(path)) is not None
    except (OSError, ValueError, RecursionError):
        return False


def check_source(path: str, reference: Mapping[str, Any]) -> None:
    """Raise ClientError if the source is not that of the split. It is read only if its time is another one."""
    try:
        status = os.stat(path)
        is_same = status.st_size == reference["size_bytes"]
        if is_same and status.st_mtime_ns != reference["mtime_ns"]:
            is_same = _sha256(path) == reference["sha256"]
    except OSError as error:
        raise ClientError(f"{path}: the source of the data cannot be opened: {error.strerror}") from error
    if not is_same:
        raise ClientError(
            f"{path}: the source of the data has changed since the split: its digest was sha256:{reference['sha256']} "
            f"and is now sha256:{_sha256(path)}",
            "restore it, or start a new run",
        )


def _sha256(path: str) -> str:
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def _members(path: str) -> dict[str, Any]:
    """The arrays of an .npz file, mapped where they are not compressed."""
    import numpy as np

    found = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename[: -len(".npy")]
            if member.compress_type == zipfile.ZIP_STORED:
                found[name] = _mapped(path, member)
            else:
                with archive.open(member) as file:
                    found[name] = np.lib.format.read_array(file, allow_pickle=False)
    return found


def _mapped(path: str, member: zipfile.ZipInfo) -> Any:
    import numpy as np

    with open(path, "rb") as file:
        file.seek(member.header_offset + 26)  # the local header has lengths of its own
        name_size, extra_size = (int.from_bytes(file.read(2), "little") for _ in range(2))
        file.seek(member.header_offset + 30 + name_size + extra_size)
        version = np.lib.format.read_magic(file)
        size = int.from_bytes(file.read(2 if version == (1, 0) else 4), "little")
        header = ast.literal_eval(file.read(size).decode("latin1" if version < (3, 0) else "utf-8"))
        dtype = np.dtype(header["descr"])
        if dtype.hasobject:
            raise ClientError(f"{path}: {member.filename} contains Python objects, which are never loaded")
        if 0 in header["shape"]:  # nothing can be mapped
            return np.empty(header["shape"], dtype)
        return np.memmap(path, dtype, "r", file.tell(), header["shape"], "F" if header["fortran_order"] else "C")
