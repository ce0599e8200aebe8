"""Models that are one bare array, whose format only the suffix of the file defines. Some of FEDn's helpers write them.

.f64   float64 values, end to end
.f32   float32 values, end to end
.txt   numpy.savetxt, one row per line
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from fedpkg.errors import ModelFileError
from fedpkg.formats.base import Suffix
from fedpkg.formats.mapped import MappedFile
from fedpkg.weights.weights import dtype_name, raw_bytes

_COMMENT, _TEXT = re.compile(rb"#[^\n]*"), re.compile(rb"[eE+.\s-]*[0-9][0-9eE+.\s-]*")
_SEEN_BYTES, _FEWEST_VALUES = 1 << 20, 16
_NAME = "0"  # the array's position
_DTYPES = {".f64": torch.float64, ".f32": torch.float32, ".txt": torch.float64}


def bare_by_content(file: MappedFile) -> Suffix | None:
    """The form of a file that is one bare array, by its content; None if that does not tell.

    A table of numbers is text. Binary values are told from those of the other width by their size: weights are mostly
    between 1e-6 and 1e6 in absolute value, and read as the other width they mostly are not. That needs some values.
    """
    if _TEXT.fullmatch(_COMMENT.sub(b"", bytes(file.view[:_SEEN_BYTES]))):
        return ".txt"
    shares: dict[Suffix, float] = {}
    widths: tuple[tuple[Suffix, type], ...] = ((".f64", np.float64), (".f32", np.float32))
    for suffix, dtype in widths:
        values: np.ndarray = np.frombuffer(file.view[: min(len(file), _SEEN_BYTES) // 8 * 8], dtype)
        if len(file) % values.itemsize == 0 and len(values) >= _FEWEST_VALUES:
            size = np.abs(values)
            shares[suffix] = float(np.mean((size == 0) | ((size > 1e-6) & (size < 1e6))))
    likely = [suffix for suffix, share in shares.items() if share > 0.95]
    others = [share for suffix, share in shares.items() if suffix not in likely]
    return likely[0] if len(likely) == 1 and all(share < 0.7 for share in others) else None


def load_bare(file: MappedFile, suffix: str) -> dict[str, Tensor]:
    """The one array of a file: mapped, and a vector, unless it is text.

    Raises:
        ModelFileError: If its size is not a multiple of its elements' size, or its text not a table of numbers.
    """
    if suffix == ".txt":
        return {_NAME: _read_text(file)}
    dtype = _DTYPES[suffix]
    count, rest = divmod(len(file), dtype.itemsize)
    if rest:
        raise file.error(f"its {len(file)} bytes are not a whole number of {dtype.itemsize}-byte values")
    file.claim(len(file), _NAME)
    return {_NAME: file.tensor(_NAME, dtype, (count,), 0)}


def dump_bare(file: BinaryIO, named: Iterable[tuple[str, Tensor]], suffix: str) -> None:
    """Write the one array of a model. Text reads back to the same bits, with the shape of ``numpy.loadtxt``.

    Raises:
        ModelFileError: If there are several arrays, or it has another dtype or shape.
    """
    tensors = list(named)
    wanted = _DTYPES[suffix]
    most = 2 if suffix == ".txt" else 1
    if len(tensors) != 1 or tensors[0][1].dtype != wanted or tensors[0][1].ndim > most or not tensors[0][1].numel():
        found = ", ".join(f"{name}: {dtype_name(tensor)} {tuple(tensor.shape)}" for name, tensor in tensors[:3])
        raise ModelFileError(
            f"a {suffix} file holds one array of {str(wanted).removeprefix('torch.')} with at most {most} dimensions; "
            f"this model has {len(tensors)} ({found}{', …' if len(tensors) > 3 else ''})",
            hint="`helper`, in the run.yaml or the package, sets the format; numpyhelper's can hold any arrays",
        )
    tensor = tensors[0][1]
    if suffix != ".txt":
        file.write(raw_bytes(tensor).numpy().data)
        return
    for row in tensor if tensor.ndim == 2 else tensor.reshape(-1, 1):
        file.write(" ".join(f"{value:.18e}" for value in row.tolist()).encode() + b"\n")


def _read_text(file: MappedFile) -> Tensor:
    lines = (line.partition(b"#")[0].split() for line in bytes(file.view).splitlines())
    rows = [row for row in lines if row]
    if not rows:
        raise file.error("its text has no numbers")
    if len({len(row) for row in rows}) > 1:
        raise file.error("its text is not a table: the lines have different numbers of values")
    file.claim(8 * len(rows) * len(rows[0]), _NAME)
    try:
        table = np.array(rows, dtype=np.float64)
    except ValueError as error:
        raise file.error(f"its text is not a table of numbers: {str(error)[:100]}") from error
    return torch.from_numpy(table.squeeze())
