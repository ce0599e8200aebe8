"""Models that are one bare array; what such a file holds only its suffix says. Some of FEDn's helpers write them.

.f64   float64 values, end to end
.f32   float32 values, end to end
.txt   numpy.savetxt, a row a line
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from fedpkg.errors import ModelFileError
from fedpkg.formats.mapped import MappedFile
from fedpkg.weights.weights import dtype_name, raw_bytes

_NAME = "0"  # the array's position
_DTYPES = {".f64": torch.float64, ".f32": torch.float32, ".txt": torch.float64}


def load_bare(file: MappedFile, suffix: str) -> dict[str, Tensor]:
    """The one array of a file: mapped, and a vector, unless it is text.

    Raises:
        ModelFileError: its size is no multiple of its elements', or its text no table of numbers.
    """
    if suffix == ".txt":
        return {_NAME: _read_text(file)}
    dtype = _DTYPES[suffix]
    count, rest = divmod(len(file), dtype.itemsize)
    if rest:
        raise file.error(f"its {len(file)} bytes are no whole number of {dtype.itemsize}-byte values")
    file.claim(len(file), _NAME)
    return {_NAME: file.tensor(_NAME, dtype, (count,), 0)}


def dump_bare(file: BinaryIO, named: Iterable[tuple[str, Tensor]], suffix: str) -> None:
    """Write the one array of a model. Text reads back to the same bits, and as ``numpy.loadtxt`` shapes it.

    Raises:
        ModelFileError: there are more, or it is of another dtype or shape.
    """
    tensors = list(named)
    wanted = _DTYPES[suffix]
    most = 2 if suffix == ".txt" else 1
    if len(tensors) != 1 or tensors[0][1].dtype != wanted or tensors[0][1].ndim > most or not tensors[0][1].numel():
        found = ", ".join(f"{name}: {dtype_name(tensor)} {tuple(tensor.shape)}" for name, tensor in tensors[:3])
        raise ModelFileError(
            f"a {suffix} file holds one array of {str(wanted).removeprefix('torch.')} with at most {most} dimensions; "
            f"this model has {len(tensors)} ({found}{', …' if len(tensors) > 3 else ''})",
            hint="the form comes from `helper`, in the run.yaml or the package; numpyhelper holds any arrays",
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
        raise file.error("its text is no table: the lines hold different counts of numbers")
    file.claim(8 * len(rows) * len(rows[0]), _NAME)
    try:
        table = np.array(rows, dtype=np.float64)
    except ValueError as error:
        raise file.error(f"its text is no table of numbers: {str(error)[:100]}") from error
    return torch.from_numpy(table.squeeze())
