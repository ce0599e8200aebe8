"""The .npz format: a zip of .npy arrays. Uncompressed members are mapped; files are written uncompressed and aligned.

Sources: PKWARE APPNOTE 6.3.10 (sections 4.3 to 4.5) and numpy.lib.format. Pickles are never loaded.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO

import torch
from torch import Tensor

from fedpkg.client.arrays import ALIGNMENT, padding
from fedpkg.client.mapped import Stream
from fedpkg.errors import ModelFileError
from fedpkg.formats.mapped import MAX_NDIM, MappedFile
from fedpkg.weights.weights import dtype_name, raw_bytes

MAX_DIRECTORY_BYTES = 16 << 20
MAX_HEADER_BYTES = 10_000  # numpy's own limit
ZIP64_ABOVE = 0xFFFFFFFE

_ENCRYPTED, _UTF8 = 0x1, 0x800
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_DOS_DATE = (1 << 5) | 1  # 1980-01-01, so that equal models give equal bytes
_STEP = 1 << 16  # compressed bytes inflated at once
_MAX_RATIO = 1032  # deflate's highest ratio
_BACKGROUND_ABOVE = 1 << 20

# A .npy header is {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }, with its keys in any order. It is not
# evaluated, not even as a literal: a few kilobytes of nested text can overflow the stack of Python's compiler.
_DESCR = re.compile(r"""['"]descr['"]\s*:\s*(['"][^'"]*['"]|[\[(])""")
_FORTRAN_ORDER = re.compile(r"""['"]fortran_order['"]\s*:\s*(True|False)\b""")
_SHAPE = re.compile(r"""['"]shape['"]\s*:\s*\(([\d\s,]*)\)""")

_DTYPES = {
    "f2": torch.float16,
    "f4": torch.float32,
    "f8": torch.float64,
    "c8": torch.complex64,
    "c16": torch.complex128,
    "b1": torch.bool,
    "i1": torch.int8,
    "i2": torch.int16,
    "i4": torch.int32,
    "i8": torch.int64,
    "u1": torch.uint8,
} | {  # since torch 2.3
    code: getattr(torch, name)
    for code, name in {"u2": "uint16", "u4": "uint32", "u8": "uint64"}.items()
    if hasattr(torch, name)
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


# ------------------------------------------------------------------------------------------------------------ reading


def npz_names(file: MappedFile) -> list[str]:
    """The arrays' names, in the file's order."""
    return [name for name, _ in _members(file)]


def load_npz(file: MappedFile) -> dict[str, Tensor]:
    """The arrays of an .npz file: mapped if stored and aligned, else copied; never unpickled.

    The checksums of stored members are not computed: that would read the whole file.

    Raises:
        ModelFileError: If a member is not a plain array of numbers, or not completely inside the file.
    """
    return {name: _load_member(file, name, info) for name, info in _members(file)}


class _Directory(Stream):
    """A file from which zipfile reads the directory, with a limit on the directory's size."""

    def __init__(self, file: MappedFile) -> None:
        super().__init__(file.view)
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if size > MAX_DIRECTORY_BYTES:
            raise self._file.error(f"its zip directory has {size} bytes, more than allowed")
        return super().read(size)


def _members(file: MappedFile) -> Iterator[tuple[str, zipfile.ZipInfo]]:
    try:
        with zipfile.ZipFile(_Directory(file)) as archive:
            infos: list[zipfile.ZipInfo] = archive.infolist()
    except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError, OSError, OverflowError) as error:
        reason = f"it is not a usable zip file: {error}"
        if bytes(file.view[:4]) == b"PK\3\4":
            reason = f"the file is truncated or damaged: its zip directory, at the end, cannot be read ({error})"
        raise file.error(reason) from error
    seen = set()
    for info in infos:
        if not info.filename.endswith(".npy"):
            hint = None
            if info.filename.endswith("/data.pkl"):
                hint = "this is a file of torch.save(); use numpy.savez() or safetensors.torch.save_file()"
            raise file.error(f"member {info.filename!r} is not a .npy array", hint=hint)
        name = info.filename[: -len(".npy")]
        if name in seen:
            raise file.error("the file contains it twice", name)
        seen.add(name)
        yield name, info


@dataclass(frozen=True)
class _Header:
    """The header of a .npy array; ``start`` is the offset of the elements."""

    dtype: torch.dtype
    big_endian: bool
    fortran_order: bool
    shape: tuple[int, ...]
    start: int

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def _load_member(file: MappedFile, name: str, info: zipfile.ZipInfo) -> Tensor:
    packed_start = _packed_start(file, name, info)
    packed = file.view[packed_start : packed_start + info.compress_size]
    if info.compress_type == zipfile.ZIP_STORED:
        if info.compress_size != info.file_size:
            raise file.error("is uncompressed, but its compressed and uncompressed sizes differ", name)
        head = packed[: MAX_HEADER_BYTES + 12]
    elif info.compress_type == zipfile.ZIP_DEFLATED:
        if info.file_size > info.compress_size * _MAX_RATIO:
            raise file.error("cannot have the size that the zip directory states", name)
        head = memoryview(_inflate_head(file, name, packed))
    else:
        raise file.error("has a compression method that numpy does not use", name)

    try:
        header = _parse_header(bytes(head[: _header_end(head)]))
    except ValueError as error:
        raise file.error(str(error), name) from error
    if header.start + header.num_bytes != info.file_size:
        found = info.file_size - header.start
        raise file.error(f"its shape {header.shape} needs {header.num_bytes} bytes, but it has {found}", name)
    file.claim(header.num_bytes, name)

    source = None
    start = packed_start + header.start
    if info.compress_type == zipfile.ZIP_DEFLATED:
        source, start = _inflate(file, name, packed, info), header.start
    if header.big_endian and header.num_bytes:
        source = _swap_bytes(
            memoryview(file.view if source is None else source)[start:][: header.num_bytes], header.dtype
        )
        start = 0
    if header.fortran_order and len(header.shape) > 1:
        tensor = file.tensor(name, header.dtype, header.shape[::-1], start, source)
        return tensor.permute(*range(tensor.ndim)[::-1]).contiguous()
    return file.tensor(name, header.dtype, header.shape, start, source)


def _packed_start(file: MappedFile, name: str, info: zipfile.ZipInfo) -> int:
    """The offset of a member's bytes, after comparing its local header with the directory."""
    if not 0 <= info.header_offset <= len(file) - _LOCAL.size:
        raise file.error("is outside the file", name)
    signature, _, flags, method, *_, name_length, extra_length = _LOCAL.unpack_from(file.view, info.header_offset)
    name_start: int = info.header_offset + _LOCAL.size
    packed_start: int = name_start + name_length + extra_length
    if signature != b"PK\3\4":
        raise file.error("its zip header is damaged", name)
    if (flags | info.flag_bits) & _ENCRYPTED:
        raise file.error("is encrypted", name)
    encoding = "utf-8" if flags & _UTF8 else "cp437"
    local_name = bytes(file.view[name_start : name_start + name_length]).decode(encoding, errors="replace")
    if local_name != info.orig_filename or method != info.compress_type:
        raise file.error("its zip header and the zip directory differ", name)
    if packed_start + info.compress_size > len(file):
        raise file.error("reaches beyond the end of the file: the file is truncated", name)
    return packed_start


def _inflate_head(file: MappedFile, name: str, packed: memoryview) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed[: MAX_HEADER_BYTES + 12], MAX_HEADER_BYTES + 12)
    except zlib.error as error:
        raise file.error(f"its compressed bytes are damaged: {error}", name) from error


def _inflate(file: MappedFile, name: str, packed: memoryview, info: zipfile.ZipInfo) -> bytearray:
    """The member's bytes, in no more memory than its size, which its header has confirmed."""
    out = bytearray(info.file_size)
    filled = 0
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for start in range(0, len(packed), _STEP):
            piece = inflater.decompress(packed[start : start + _STEP], info.file_size - filled + 1)
            if filled + len(piece) > info.file_size:
                raise file.error("its compressed bytes contain more than its shape needs", name)
            out[filled : filled + len(piece)] = piece
            filled += len(piece)
    except zlib.error as error:
        raise file.error(f"its compressed bytes are damaged: {error}", name) from error
    if filled != info.file_size or not inflater.eof:
        raise file.error("its compressed bytes are truncated", name)
    if zlib.crc32(out) != info.CRC:
        raise file.error("its checksum is wrong: the file is damaged", name)
    return out


def _header_end(head: memoryview) -> int:
    """Length of the magic, version, length and text at the start of a .npy array."""
    if bytes(head[:6]) != b"\x93NUMPY" or len(head) < 12:
        raise ValueError("is not a .npy array")
    version = (head[6], head[7])
    if version == (1, 0):
        end = 10 + int.from_bytes(head[8:10], "little")
    elif version in ((2, 0), (3, 0)):
        end = 12 + int.from_bytes(head[8:12], "little")
    else:
        raise ValueError(f"has .npy version {version[0]}.{version[1]}, which is unknown")
    if end > len(head):
        raise ValueError("its .npy header is truncated or too long")
    return end


@functools.lru_cache(maxsize=1024)  # all clients' files have the same headers
def _parse_header(header: bytes) -> _Header:
    text = header[10 if header[6] == 1 else 12 :].decode("utf-8" if header[6] == 3 else "latin-1")
    descr, fortran_order, shape_text = _DESCR.search(text), _FORTRAN_ORDER.search(text), _SHAPE.search(text)
    if not (descr and fortran_order and shape_text and text.strip()[0] + text.strip()[-1] == "{}"):
        raise ValueError("its .npy header is damaged")
    dtype, big_endian = _parse_descr(descr[1])
    shape = tuple(int(size) for size in shape_text[1].split(",") if size.strip())
    if len(shape) > MAX_NDIM:
        raise ValueError(f"has {len(shape)} dimensions")
    if any(size >= 2**63 for size in shape):
        raise ValueError("has a shape that tensors cannot have")
    return _Header(dtype, big_endian, fortran_order[1] == "True", shape, len(header))


def _parse_descr(descr: str) -> tuple[torch.dtype, bool]:
    """Torch's dtype for numpy's description, and whether it is big-endian."""
    if descr[0] in "[(":
        raise ValueError("has a structured dtype, which tensors cannot have")
    order, code = descr[1], descr.strip("'\"").lstrip("<>=|")
    if code.startswith("O"):
        raise ValueError("contains a pickle (an array of Python objects), which is never loaded")
    if code not in _DTYPES:
        hint = " (bfloat16 and other dtypes that numpy lacks need .safetensors)" if code.startswith("V") else ""
        raise ValueError(f"has the numpy dtype {descr}, which tensors cannot have{hint}")
    return _DTYPES[code], order == ">"


def _swap_bytes(raw: memoryview, dtype: torch.dtype) -> bytearray:
    width = dtype.itemsize // 2 if dtype.is_complex else dtype.itemsize
    swapped = bytearray(raw)
    elements = torch.frombuffer(swapped, dtype=torch.uint8).view(-1, width)
    elements.copy_(elements.flip(1))
    return swapped


# ------------------------------------------------------------------------------------------------------------ writing


@dataclass
class _Member:
    """One array to be written."""

    name: bytes
    header: bytes
    tensor: Tensor
    offset: int = 0
    crc: int = 0

    @property
    def size(self) -> int:
        return len(self.header) + self.tensor.numel() * self.tensor.element_size()

    @property
    def flags(self) -> int:
        return 0 if self.name.isascii() else _UTF8


def can_hold(tensor: Tensor) -> bool:
    """Whether numpy has the tensor's dtype."""
    return tensor.dtype in _CODES


def dump_npz(file: BinaryIO, tensors: Iterable[tuple[str, Tensor]], *, zip64_above: int = ZIP64_ABOVE) -> None:
    """Write tensors as an uncompressed .npz at the start of ``file``.

    Equal tensors give equal bytes. Elements begin at multiples of 64 bytes, so that they can be mapped.
    ``file`` needs only ``write``: earlier bytes are never changed.

    Raises:
        ModelFileError: If the format does not support a tensor's dtype or name (nothing is written).
    """
    members = [_member(name, tensor) for name, tensor in tensors]
    offset = 0
    for member, payload in _with_checksums(members):
        member.offset = offset
        local = _local_header(member, zip64_above)
        file.write(local + member.header)
        file.write(payload)
        offset += len(local) + member.size
    directory = b"".join(_central_header(member, zip64_above) for member in members)
    file.write(directory + _end(len(members), len(directory), offset, zip64_above))


def _with_checksums(members: Sequence[_Member]) -> Iterator[tuple[_Member, memoryview]]:
    """Each member with its bytes, when its checksum is known; a second thread prepares the next one, if big."""
    with ThreadPoolExecutor(1) as pool:
        coming: Future[memoryview] | None = None
        for member, following in itertools.zip_longest(members, members[1:]):
            payload = _pack(member) if coming is None else coming.result()
            coming = pool.submit(_pack, following) if following and following.size > _BACKGROUND_ABOVE else None
            yield member, payload


def _pack(member: _Member) -> memoryview:
    """A member's bytes; also sets its checksum."""
    payload = raw_bytes(member.tensor).numpy().data
    member.crc = zlib.crc32(payload, zlib.crc32(member.header))
    return payload


def _member(name: str, tensor: Tensor) -> _Member:
    if not can_hold(tensor):
        raise ModelFileError(
            f"tensor {name!r}: an .npz file cannot hold {dtype_name(tensor)}", hint="use .safetensors", tensor=name
        )
    try:
        encoded = f"{name}.npy".encode()
    except UnicodeEncodeError as error:
        raise ModelFileError(f"tensor {name!r}: its name is not valid Unicode", tensor=name) from error
    if len(encoded) > 0xFFFF or b"\0" in encoded:
        raise ModelFileError(f"tensor {name!r}: an .npz file cannot hold this name", tensor=name)
    order = "|" if tensor.element_size() == 1 else "<"
    text = repr({"descr": order + _CODES[tensor.dtype], "fortran_order": False, "shape": tuple(tensor.shape)}).encode()
    text += b" " * (-(10 + len(text) + 1) % ALIGNMENT) + b"\n"
    header = b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text
    return _Member(encoded, header, tensor)


def _local_header(member: _Member, zip64_above: int) -> bytes:
    size, extra, version = member.size, b"", 20
    if size > zip64_above:
        extra = struct.pack("<2H2Q", 1, 16, size, size)
        size, version = 0xFFFFFFFF, 45
    extra += padding(member.offset + _LOCAL.size + len(member.name) + len(extra))
    fields = (version, member.flags, 0, 0, _DOS_DATE, member.crc, size, size, len(member.name), len(extra))
    return _LOCAL.pack(b"PK\3\4", *fields) + member.name + extra


def _central_header(member: _Member, zip64_above: int) -> bytes:
    size, offset, extra, version = member.size, member.offset, b"", 20
    if max(size, offset) > zip64_above:
        extra = struct.pack("<2H3Q", 1, 24, size, size, offset)
        size, offset, version = 0xFFFFFFFF, 0xFFFFFFFF, 45
    made_by, mode = (3 << 8) | version, 0o644 << 16  # Unix
    fields = (made_by, version, member.flags, 0, 0, _DOS_DATE, member.crc, size, size, len(member.name), len(extra))
    return _CENTRAL.pack(b"PK\1\2", *fields, 0, 0, 0, mode, offset) + member.name + extra


def _end(count: int, size: int, offset: int, zip64_above: int) -> bytes:
    """The end records of a zip file, for a directory of ``size`` bytes at ``offset``."""
    zip64 = b""
    if count > 0xFFFE or max(size, offset) > zip64_above:
        zip64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, offset)
        zip64 += struct.pack("<4sLQL", b"PK\6\7", 0, offset + size, 1)
        count, size, offset = 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF
    return zip64 + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, size, offset, 0)
