"""The .safetensors format: a JSON header and the tensors' bytes. Files are mapped; equal tensors give equal bytes.

Source: the format section of https://github.com/huggingface/safetensors. That library is not used, because it opens
files by path, whereas a client's file must be mapped from the descriptor that was checked. Mapping, limits, alignment
and the order of names are the same as for .npz. Tests compare this module with the library.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch
from torch import Tensor

from fedpkg.client.arrays import ALIGNMENT, CODES
from fedpkg.errors import ModelFileError
from fedpkg.formats.mapped import MAX_NDIM, MappedFile
from fedpkg.weights.weights import dtype_name, raw_bytes

MAX_HEADER_BYTES = 16 << 20

_DTYPES: dict[str, torch.dtype] = {  # some exist only in later versions of torch
    code: getattr(torch, name) for name, code in CODES.items() if hasattr(torch, name)
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


@dataclass(frozen=True)
class _Entry:
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int


def safetensors_names(file: MappedFile) -> list[str]:
    """The tensors' names, in the order of the file's header."""
    return [entry.name for entry in _entries(file)]


def load_safetensors(file: MappedFile) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, mapped where their elements are aligned, in the order of its header.

    Raises:
        ModelFileError: If the header is damaged, or the tensors do not fill the file exactly and without overlap.
    """
    tensors = {}
    for entry in _entries(file):
        file.claim(entry.end - entry.start, entry.name)
        tensors[entry.name] = file.tensor(entry.name, entry.dtype, entry.shape, entry.start)
    return tensors


def _entries(file: MappedFile) -> list[_Entry]:
    data_start = 8 + int.from_bytes(file.view[:8], "little")
    if data_start > len(file):
        raise file.error("the file is truncated or damaged: its header reaches beyond its end")
    if data_start > MAX_HEADER_BYTES:
        raise file.error(f"its header has {data_start - 8} bytes, more than allowed")
    try:
        header = json.loads(bytes(file.view[8:data_start]).decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise file.error(f"its header is damaged: {error}") from error
    if not isinstance(header, dict):
        raise file.error("its header is damaged: it is not an object")
    header.pop("__metadata__", None)

    entries = [_entry(file, name, fields, data_start) for name, fields in header.items()]
    end = data_start
    for entry in sorted(entries, key=lambda entry: (entry.start, entry.end)):
        if entry.start != end:
            raise file.error("its bytes do not begin at the end of the previous tensor's", entry.name)
        end = entry.end
        if end > len(file):
            raise file.error("reaches beyond the end of the file: the file is truncated", entry.name)
    if end != len(file):
        raise file.error(f"its last {len(file) - end} bytes do not belong to a tensor")
    return entries


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it contains a name twice")
    return found


def _entry(file: MappedFile, name: str, fields: Any, data_start: int) -> _Entry:
    try:
        name.encode()
        code, shape, (start, end) = fields["dtype"], fields["shape"], fields["data_offsets"]
        is_usable = len(shape) <= MAX_NDIM and all(
            type(size) is int and 0 <= size < 2**63 for size in [*shape, start, end]
        )
    except (KeyError, TypeError, ValueError):
        is_usable = False
    if not is_usable:
        raise file.error("its entry in the header is damaged", name)
    if not isinstance(code, str) or code not in _DTYPES:
        raise file.error(f"has the dtype {str(code)[:40]!r}, which fedpkg does not support", name)
    dtype = _DTYPES[code]
    if math.prod(shape) * dtype.itemsize != end - start:
        raise file.error(f"its shape {tuple(shape)} does not fit its {end - start} bytes", name)
    return _Entry(name, dtype, tuple(shape), data_start + start, data_start + end)


def dump_safetensors(file: BinaryIO, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Write tensors as .safetensors. Equal tensors give equal bytes.

    The header keeps the tensors' order; their bytes are sorted by the size of their elements, which aligns all of them
    (the format allows no padding between tensors).

    Raises:
        ModelFileError: If the format does not support a tensor's dtype or name (nothing is written).
    """
    named = list(tensors)
    for name, tensor in named:
        if tensor.dtype not in _CODES:
            raise ModelFileError(f"tensor {name!r}: a .safetensors file cannot hold {dtype_name(tensor)}", tensor=name)
        if name == "__metadata__" or any("\ud800" <= letter <= "\udfff" for letter in name):
            raise ModelFileError(f"tensor {name!r}: a .safetensors file cannot hold this name", tensor=name)
    ordered = sorted(named, key=lambda item: -item[1].element_size())
    offsets, end = {}, 0
    for name, tensor in ordered:
        start, end = end, end + tensor.numel() * tensor.element_size()
        offsets[name] = [start, end]
    header = json.dumps(
        {
            name: {"dtype": _CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets[name]}
            for name, tensor in named
        },
        separators=(",", ":"),
        ensure_ascii=False,
    ).encode()
    header += b" " * (-(8 + len(header)) % ALIGNMENT)
    file.write(len(header).to_bytes(8, "little") + header)
    for _, tensor in ordered:
        file.write(raw_bytes(tensor).numpy().data)
