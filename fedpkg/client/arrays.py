"""Files of named tensors: .npz and .safetensors, without pickles, mapped, written atomically."""

from __future__ import annotations

import functools
import io
import json
import math
import os
import struct
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from fedpkg.client.errors import ClientError
from fedpkg.client.mapped import File, Stream

if TYPE_CHECKING:
    from torch import Tensor

CODES = {  # of .safetensors, by the names of the dtypes
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
_DTYPES = {code: name for name, code in CODES.items()}
BITS = {  # dtypes that NumPy lacks, and those that hold their bits
    "bfloat16": "uint16",
    "float8_e4m3fn": "uint8",
    "float8_e5m2": "uint8",
    "float8_e4m3fnuz": "uint8",
    "float8_e5m2fnuz": "uint8",
    "float8_e8m0fnu": "uint8",
}
NUMPY = frozenset(CODES) - frozenset(BITS) | {"complex128"}
ALIGNMENT = 64  # of elements in files, so that they can be mapped
_LOCAL = struct.Struct("<4s2x2H16x2H")  # the header of a member
_PAD = struct.Struct("<3H")
_PAD_ID = 0xD935  # the extra field that Android's zipalign uses for padding
_ZIP64_ABOVE = 1 << 31  # as zipfile
_MAX_HEADER = 10_000  # numpy's own limit
_MAX_RATIO = 1032  # deflate's highest ratio


class Plain(NamedTuple):
    """An array in NumPy's terms: C-ordered, in native byte order.

    ``dtype`` is the name that PyTorch has for it. If it is in ``BITS``, ``values`` are its bits. An array that is part
    of a file begins there at ``start``.
    """

    dtype: str
    values: Any
    file: File | None = None
    start: int = 0

    def copy(self) -> Plain:
        return Plain(self.dtype, self.values.copy())

    def tensor(self) -> Tensor:
        """A tensor that shares the memory of ``values``, which must be writable."""
        import torch

        if not self.values.size:  # NumPy may give it strides of 0, with which PyTorch cannot view it as bytes
            return torch.empty(self.values.shape, dtype=getattr(torch, self.dtype))
        if self.dtype in BITS:  # viewed as signed: PyTorch has few functions for uint16
            signed = self.values.view(BITS[self.dtype][1:])
            return torch.from_numpy(signed).view(getattr(torch, self.dtype))
        return torch.from_numpy(self.values)


def is_tensor(value: Any) -> bool:
    """Whether a value is a PyTorch tensor, without importing PyTorch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, getattr(torch, "Tensor", ()))


def plain(key: str, value: Any) -> Plain:
    """A tensor, an array or what NumPy converts to one, without a copy where none is needed.

    Raises:
        ClientError: If it does not consist of numbers, or has a dtype or layout that cannot be written.
    """
    import numpy as np

    if isinstance(value, Plain):
        return value
    if is_tensor(value):
        return _of_tensor(key, value)
    array = np.asarray(value, order="C")
    name = array.dtype.name
    if name in BITS:  # of ml_dtypes, as JAX has them
        return Plain(name, array.view(BITS[name]))
    if name not in NUMPY:
        raise ClientError(f"{key!r} is not an array of numbers: NumPy gives it the dtype {array.dtype}")
    return Plain(name, array.astype(array.dtype.newbyteorder("="), copy=False))


def _of_tensor(key: str, tensor: Any) -> Plain:
    import torch

    name = str(tensor.dtype)[len("torch.") :]
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
        what = f"is on no device ({tensor.device})" if tensor.is_meta else f"has the layout {tensor.layout}"
        hint = "give dense tensors: call .to_dense(), or .dequantize()"
        raise ClientError(f"tensor {key!r} {'is quantized' if tensor.is_quantized else what}", hint)
    dense = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    if name in BITS:
        bits = BITS[name]
        return Plain(name, dense.view(torch.uint8 if bits == "uint8" else torch.int16).numpy().view(bits))
    if name not in NUMPY:
        raise ClientError(f"tensor {key!r} has the dtype {tensor.dtype}, which cannot be written")
    return Plain(name, dense.numpy())


def read(path: str) -> dict[str, Tensor]:
    """Read the tensors of a file by their keys, as copies; the format is recognised by its content.

    Raises:
        ClientError: If it cannot be read, or has neither format.
    """
    return {name: one.copy().tensor() for name, one in open_file(path).items()}


def open_file(path: str, part: tuple[int, int] | None = None) -> dict[str, Plain]:
    """The arrays of a file, or of a part of one, by their keys, read-only; those of a large file are mapped where they
    are aligned.

    Raises:
        ClientError: If it cannot be read, or has neither format.
    """
    try:
        file = File(path, part)
        return _read_npz(file) if bytes(file.view[:4]) == b"PK\3\4" else _read_safetensors(file)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        NotImplementedError,
        OverflowError,
        RecursionError,
        MemoryError,
        struct.error,
        zipfile.BadZipFile,
        EOFError,
    ) as error:
        raise ClientError(f"{path}: cannot be read as .npz or .safetensors: {type(error).__name__}: {error}") from error


def write(path: str, tensors: Mapping[str, Any]) -> None:
    """Write tensors, or values that NumPy converts to arrays, by their keys: as .safetensors if the path ends so, else
    as .npz. Elements are aligned, so that they can be mapped.

    Raises:
        ClientError: If the format does not support a tensor's dtype.
    """
    with _whole(path) as file:
        write_to(file, tensors, suffix=".safetensors" if path.endswith(".safetensors") else ".npz")


def write_to(file: BinaryIO, tensors: Mapping[str, Any], *, suffix: str) -> None:
    """Write tensors to an open file, as `write` does."""
    if suffix == ".safetensors":
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
    except BaseException:
        with suppress(OSError):
            os.unlink(unfinished)
        raise


def _part(file: File, key: str, dtype: str, shape: tuple[int, ...], start: int) -> Plain:
    """The array whose elements begin at ``start`` in a file, which has all of them."""
    import numpy as np

    one = np.dtype(BITS.get(dtype, dtype))
    flat: Any = np.frombuffer(file.view, np.uint8, math.prod(shape) * one.itemsize, start)
    if start % one.itemsize:  # np.savez does not align arrays, and compiled code may rely on it
        flat = flat.copy()
    values = flat.view(one).reshape(shape)
    if dtype == "bool" and flat.max(initial=0) > 1:
        raise ValueError(f"{key!r} is boolean, but contains bytes other than 0 and 1")
    values.flags.writeable = False
    return Plain(dtype, values, file, start) if not start % one.itemsize else Plain(dtype, values)


# ---- .npz


def _read_npz(file: File) -> dict[str, Plain]:
    found: dict[str, Plain] = {}
    with zipfile.ZipFile(Stream(file.view)) as archive:
        for info in archive.infolist():
            name = info.filename[: -len(".npy")]
            if not info.filename.endswith(".npy") or name in found:
                raise ValueError(f"its member {info.filename!r} is no array, or there twice")
            try:
                found[name] = _member(file, archive, info, name)
            except ValueError as error:
                raise ValueError(f"{name!r}: {error}") from error
    return found


def _member(file: File, archive: zipfile.ZipFile, info: zipfile.ZipInfo, key: str) -> Plain:
    import numpy as np

    is_stored = info.compress_type == zipfile.ZIP_STORED
    begin = _stored_start(file, info) if is_stored else 0
    if is_stored:
        head = bytes(file.view[begin : begin + min(info.file_size, _MAX_HEADER + 12)])
    else:
        with archive.open(info) as member:
            head = member.read(_MAX_HEADER + 12)
    size_of_header = 12 + int.from_bytes(head[8:12], "little")
    if head[6:7] == b"\1":
        size_of_header = 10 + int.from_bytes(head[8:10], "little")
    shape, is_fortran, dtype = _array_header(head[:size_of_header])
    if dtype.name not in NUMPY:
        raise ValueError(f"it has the dtype {str(dtype)[:40]}, and is no array of numbers")
    size = math.prod(shape) * dtype.itemsize
    if size_of_header + size != info.file_size or info.file_size > info.compress_size * _MAX_RATIO:
        raise ValueError(f"its shape {shape} does not fit its size")
    if is_stored and dtype.isnative and not (is_fortran and len(shape) > 1):
        return _part(file, key, dtype.name, shape, begin + size_of_header)
    with archive.open(info) as member:
        content = member.read()
    array = np.frombuffer(content, dtype, offset=size_of_header).reshape(shape, order="F" if is_fortran else "C")
    array = np.array(array, dtype.newbyteorder("="), order="C")
    array.flags.writeable = False
    return Plain(dtype.name, array)


def _stored_start(file: File, info: zipfile.ZipInfo) -> int:
    """The offset of a member's bytes, after comparing its own header with the directory."""
    signature, flags, method, name_length, extra_length = _LOCAL.unpack_from(file.view, info.header_offset)
    begin = info.header_offset + _LOCAL.size
    name = bytes(file.view[begin : begin + name_length]).decode("utf-8" if flags & 0x800 else "cp437", "replace")
    start: int = begin + name_length + extra_length
    if (signature, method, name) != (b"PK\3\4", zipfile.ZIP_STORED, info.orig_filename) or flags & 1:
        raise ValueError("its zip header is damaged, or it is encrypted")
    if info.compress_size != info.file_size or start + info.file_size > len(file):
        raise ValueError("it reaches beyond the end of the file")
    return start


@functools.lru_cache(maxsize=1024)  # the files of a model have the same headers
def _array_header(content: bytes) -> tuple[tuple[int, ...], bool, Any]:
    """Shape, whether it is in Fortran's order, and dtype."""
    import numpy as np

    header = io.BytesIO(content)
    try:
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[np.lib.format.read_magic(header)]
        return read(header)
    except Exception as error:  # damaged text can raise any error of Python's tokenizer and compiler
        raise ValueError(f"its header is damaged: {type(error).__name__}: {error}") from error


def _write_npz(file: BinaryIO, tensors: Mapping[str, Any]) -> None:
    import numpy as np

    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, tensor in tensors.items():
            one = plain(name, tensor)
            if one.dtype in BITS:
                raise ClientError(
                    f"tensor {name!r}: an .npz file cannot hold torch.{one.dtype}, a .safetensors file can",
                    "all model files have the format of the seed model: put a file name into the command of build, "
                    "`command: python main.py build seed.safetensors`, or set seed_model to a .safetensors file",
                )
            header = io.BytesIO()
            fields = {"descr": one.values.dtype.str, "fortran_order": False, "shape": one.values.shape}
            np.lib.format.write_array_header_1_0(header, fields)
            is_big = one.values.nbytes + header.tell() > _ZIP64_ABOVE
            # A ZipInfo with the default time, so that equal tensors give equal bytes.
            info = zipfile.ZipInfo(name + ".npy")
            info.extra = padding(file.tell() + 30 + len(info.filename.encode()) + 20 * is_big + header.tell())
            with archive.open(info, "w", force_zip64=is_big) as member:
                member.write(header.getvalue())
                member.write(one.values.reshape(-1).view(np.uint8).data)


def padding(end: int) -> bytes:
    """An extra field of a zip header, after which what would begin at ``end`` is aligned."""
    size = -end % ALIGNMENT
    size += ALIGNMENT if 0 < size < _PAD.size else 0
    return _PAD.pack(_PAD_ID, size - 4, ALIGNMENT).ljust(size, b"\0") if size else b""


# ---- .safetensors


def _read_safetensors(file: File) -> dict[str, Plain]:
    begin = 8 + int.from_bytes(file.view[:8], "little")
    if begin > 8 + (16 << 20):
        raise ValueError("its header is too long")
    header = json.loads(bytes(file.view[8:begin]))
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        dtype = _DTYPES[entry["dtype"]]
        start, end = entry["data_offsets"]
        shape = tuple(entry["shape"])
        if not all(type(number) is int and number >= 0 for number in (start, end, *shape)):
            raise ValueError(f"the entry of tensor {name!r} is damaged")
        if not start <= end <= len(file) - begin:
            raise ValueError(f"tensor {name!r} reaches beyond the end of the file")
        if math.prod(shape) * _size(dtype) != end - start:
            raise ValueError(f"tensor {name!r}: its shape {shape} does not fit its {end - start} bytes")
        found[name] = _part(file, name, dtype, shape, begin + start)
    return found


def _size(dtype: str) -> int:
    import numpy as np

    return np.dtype(BITS.get(dtype, dtype)).itemsize


def can_hold(suffix: str, dtype: str) -> bool:
    """Whether files of this suffix have the dtype."""
    return dtype in (CODES if suffix == ".safetensors" else NUMPY)


def suffix_for(plains: Mapping[str, Plain]) -> str:
    """The suffix of a file that has these arrays: .npz if it can hold them, else .safetensors."""
    return ".npz" if all(can_hold(".npz", one.dtype) for one in plains.values()) else ".safetensors"


def _write_safetensors(file: BinaryIO, tensors: Mapping[str, Any]) -> None:
    import numpy as np

    plains = {name: plain(name, one) for name, one in tensors.items()}
    header, contents, end = {}, [], 0
    # Sorted by the size of their elements, so that all are aligned: the format allows no gaps.
    for name, one in sorted(plains.items(), key=lambda item: -item[1].values.itemsize):
        code = CODES.get(one.dtype)
        if code is None:
            raise ClientError(f"tensor {name!r}: a .safetensors file cannot hold torch.{one.dtype}")
        contents.append(one.values.reshape(-1).view(np.uint8))
        start, end = end, end + contents[-1].nbytes
        header[name] = {"dtype": code, "shape": list(one.values.shape), "data_offsets": [start, end]}
    text = json.dumps({name: header[name] for name in plains}, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    file.write(len(text).to_bytes(8, "little") + text)
    for content in contents:
        file.write(content.data)
