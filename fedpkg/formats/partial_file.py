"""Files of partial sums: one part of a cohort's contribution to a mean, as named weight sets in a model file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from fedpkg.errors import ModelFileError
from fedpkg.formats.base import ModelForm
from fedpkg.formats.model_file import read_sets, write_sets
from fedpkg.formats.npz import can_hold
from fedpkg.weights.fold import Partial
from fedpkg.weights.weights import Weights

# The sets of the file: the sums, and facts about them.
_SUMS, _OF = "sums", "of"
_COUNTS, _MEASURES = ("start", "stop", "count"), ("weight", "largest")
_NUMBERS = "numbers."


def write_partial(path: Path, partial: Partial, *, durable: bool = False) -> None:
    """Write a partial sum atomically, as an .npz file, or as .safetensors if a dtype needs it.

    Raises:
        ModelFileError: If no format supports all of its tensors, or the file cannot be written.
    """
    facts = {name: torch.tensor(getattr(partial, name)) for name in _COUNTS}
    facts |= {name: torch.tensor(getattr(partial, name), dtype=torch.float64) for name in _MEASURES}
    facts |= {_NUMBERS + name: torch.tensor(each, dtype=torch.float64) for name, each in partial.numbers.items()}
    sets = {_OF: Weights(facts)} | ({_SUMS: partial.sums} if partial.sums else {})
    form = ModelForm(".npz" if all(can_hold(tensor) for tensor in partial.sums.values()) else ".safetensors")
    write_sets(path, sets, form, durable=durable)


def read_partial(path: Path, *, max_bytes: int | None = None) -> Partial:
    """The partial sum in a file, mapped as by `fedpkg.formats.model_file.read_model`; its values are exact.

    Raises:
        ModelFileError: If the file is damaged, has other contents, or more than ``max_bytes`` of tensors.
    """
    sets = read_sets(path, max_bytes=max_bytes)
    facts = sets.get(_OF, Weights({}))
    start, stop, count = (int(_fact(path, facts, name, torch.int64, 0)) for name in _COUNTS)
    weight, largest = (float(_fact(path, facts, name, torch.float64, 0)) for name in _MEASURES)
    numbers = {
        name.removeprefix(_NUMBERS): _fact(path, facts, name, torch.float64, 1).tolist()
        for name in facts
        if name.startswith(_NUMBERS)
    }
    is_sane = 0 <= start < stop and 0 <= count <= stop - start and 0 <= largest <= weight < float("inf")
    if not is_sane or (count > 0) != (largest > 0) or any(len(values) != count for values in numbers.values()):
        raise _error(path, "its numbers are inconsistent")
    return Partial(start, stop, count, weight, largest, sets.get(_SUMS, Weights({})), numbers)


def _fact(path: Path, facts: Weights, name: str, dtype: torch.dtype, ndim: int) -> Tensor:
    tensor = facts.get(name)
    if tensor is None or tensor.dtype != dtype or tensor.ndim != ndim:
        raise _error(path, f"it has no valid {_OF}/{name}")
    return tensor


def _error(path: Path, reason: str) -> ModelFileError:
    return ModelFileError(f"{path}: is not a partial sum: {reason}", path=str(path))
