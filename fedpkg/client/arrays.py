"""Files of named tensors: .npz and .safetensors, without pickles, written atomically."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO

from fedpkg.client.errors import ClientError

if TYPE_CHECKING:
    from torch import Tensor

_CODES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "uint32": "U32",
    "int32": "I32",
    "uint64": "U64",
    "int64": "I64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
    "complex64": "C64",
}
_DTYPES = {code: name for name, code in _CODES.items()}


def read(path: str) -> dict[str, Tensor]:
    """Read the tensors of a file by their keys, as copies; the format is recognised by its content.

    Raises:
        ClientError: If it cannot be read, or has neither format.
    """
    try:
        with open(path, "rb") as file:
            magic = file.read(4)
            file.seek(0)
            return _read_npz(file) if magic == b"PK\3\4" else _read_safetensors(file)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, EOFError) as error:
        raise ClientError(f"{path}: cannot be read as .npz or .safetensors: {type(error).__name__}: {error}") from error


def write(path: str, tensors: Mapping[str, Any]) -> None:
    """Write tensors, or values that NumPy converts to arrays, by their keys: as .safetensors if the path ends so, else
    as .npz.

    Raises:
        ClientError: If the format does not support a tensor's dtype.
    """
    with _whole(path) as file:
        if path.endswith(".safetensors"):
            _write_safetensors(file, tensors)
        else:
            _write_npz(file, tensors)


@contextmanager
def _whole(path: str) -> Iterator[BinaryIO]:
    """A file that gets its name when it is completely written."""
    unfinished = f"{path}.{os.getpid()}.part"
    try:
        with open(unfinished, "wb") as file:
            yield file
        os.replace(unfinished, path)
    finally:
        with suppress(OSError):
            os.unlink(unfinished)


def _read_npz(file: BinaryIO) -> dict[str, Tensor]:
    import numpy as np
    import torch

    def native(array: Any) -> Any:
        return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))

    with np.load(file, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(native(arrays[name])) for name in arrays.files}


def _numbers(key: str, value: Any) -> Any:
    """A C-ordered array in native byte order."""
    import numpy as np

    array = np.array(value, order="C")
    if array.dtype.kind not in "biufc":
        raise ClientError(f"{key!r} is not an array of numbers: NumPy gives it the dtype {array.dtype}")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _write_npz(file: BinaryIO, tensors: Mapping[str, Any]) -> None:
    import numpy as np

    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, tensor in tensors.items():
            try:
                array = tensor.detach().cpu().resolve_conj().resolve_neg().numpy()
            except AttributeError:  # not a PyTorch tensor
                array = _numbers(name, tensor)
            except TypeError as error:  # such as bfloat16
                raise ClientError(
                    f"tensor {name!r}: an .npz file cannot hold {tensor.dtype}, a .safetensors file can",
                    "all model files have the format of the seed model: put a file name into the command of build, "
                    "`command: python main.py build seed.safetensors`, or set seed_model to a .safetensors file",
                ) from error
            # A ZipInfo with the default time, so that equal tensors give equal bytes.
            with archive.open(zipfile.ZipInfo(name + ".npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _read_safetensors(file: BinaryIO) -> dict[str, Tensor]:
    import torch

    size = int.from_bytes(file.read(8), "little")
    if size > 16 << 20:
        raise ValueError("its header is too long")
    header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    content = bytearray(file.read())
    found = {}
    for name, entry in header.items():
        dtype = getattr(torch, _DTYPES[entry["dtype"]])
        start, end = entry["data_offsets"]
        if not 0 <= start <= end <= len(content):
            raise ValueError(f"tensor {name!r} reaches beyond the end of the file")
        flat = torch.frombuffer(content[start:end], dtype=dtype) if end > start else torch.empty(0, dtype=dtype)
        found[name] = flat.reshape(entry["shape"])
    return found


def _write_safetensors(file: BinaryIO, tensors: Mapping[str, Any]) -> None:
    import torch

    tensors = {
        name: one if isinstance(one, torch.Tensor) else torch.from_numpy(_numbers(name, one))
        for name, one in tensors.items()
    }
    header, contents, end = {}, [], 0
    # Sorted by the size of their elements, so that all are aligned: the format allows no gaps.
    for name, tensor in sorted(tensors.items(), key=lambda item: -item[1].element_size()):
        code = _CODES.get(str(tensor.dtype)[len("torch.") :])
        if code is None:
            raise ClientError(f"tensor {name!r}: a .safetensors file cannot hold {tensor.dtype}")
        plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
        contents.append(plain.reshape(-1).view(torch.uint8).numpy())
        start, end = end, end + contents[-1].nbytes
        header[name] = {"dtype": code, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps({name: header[name] for name in tensors}, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(8 + len(text)) % 64)
    file.write(len(text).to_bytes(8, "little") + text)
    for content in contents:
        file.write(content.data)
