"""Identifies a model's buffers (running means, counters), by the run.yaml, the seed model's metadata or their names.

Otherwise `running_statistics` recognises BatchNorm by its tensors.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fedpkg.errors import ConfigError, ModelFileError, nearest
from fedpkg.formats.metadata import metadata_path, read_metadata
from fedpkg.weights.weights import Weights

KEY = "buffers"  # in the seed's metadata, and in a run's configuration
# Names in PyTorch's and Keras's normalisation layers.
VARIANCES = ("running_var", "moving_variance")
USUAL_NAMES = ("running_mean", "moving_mean", *VARIANCES, "num_batches_tracked")


def with_buffers(weights: Weights, path: Path, *, patterns: Sequence[str] | None = None) -> Weights:
    """A seed model with its buffers identified: those in the metadata beside ``path``, or else those with usual names.

    Args:
        patterns: The patterns of the run's configuration (``"*.ema"``); tensors that match are buffers too. An empty
            list means that there are no buffers.

    Raises:
        ModelFileError: If the metadata is damaged, or lists a name that is not a tensor of the model.
        ConfigError: If a pattern matches no tensor.
    """
    listed = _listed(weights, path)
    if patterns is not None and not patterns:
        return Weights(weights)
    found = set(usual_buffers(weights) if listed is None else listed)
    for pattern in patterns or ():
        matching = [name for name in weights if fnmatch.fnmatchcase(name, pattern)]
        if not matching:
            raise ConfigError(
                f"{KEY}: {pattern!r} matches no tensor of {path.name}{nearest(pattern, weights)}",
                hint=f"a pattern is a tensor's name, or part of one with '*': {_some(weights)}",
                key=KEY,
            )
        found.update(matching)
    return Weights(weights, buffers=found)


def are_told(weights: Weights, path: Path, *, patterns: Sequence[str] | None = None) -> bool:
    """Whether a run.yaml, the metadata beside ``path``, or the usual names define which tensors are buffers.

    An empty list in the metadata does not: exported models have one even if their buffers were unknown.
    """
    return patterns is not None or bool(_listed(weights, path)) or bool(usual_buffers(weights))


def usual_buffers(names: Iterable[str]) -> list[str]:
    """The names that only buffers have."""
    return [name for name in names if _last_part(name) in USUAL_NAMES]


def are_numbered(names: Iterable[str]) -> bool:
    """Whether tensors are named by position (from FEDn's and Keras's lists, or ``numpy.savez(path, *arrays)``)."""
    return all(re.fullmatch(r"(arr_)?\d+", name) for name in names)


def running_statistics(weights: Weights) -> list[str]:
    """The tensors that look like running means and variances of BatchNorm layers, judging by their order and values.

    PyTorch has a mean, a variance (not negative) and a counter, a 0-d integer. Keras has no counter, so its layers are
    recognised only while they are new: beta is 0, the mean 0 and the variance 1.
    """
    names, tensors = list(weights), list(weights.values())
    found = []
    for i in range(1, len(names)):
        mean, variance = tensors[i - 1], tensors[i]
        if not _are_vectors(mean, variance):
            continue
        has_counter = i + 1 < len(names) and _is_counter(tensors[i + 1]) and bool((variance >= 0).all())
        is_new = i > 1 and _are_vectors(tensors[i - 2], mean) and not (tensors[i - 2].any() or mean.any())
        if has_counter or (is_new and bool((variance == 1).all())):
            found += [names[i - 1], names[i]]
    return found


def negative_variances(before: Weights, after: Weights) -> list[str]:
    """The running variances of a global model (by their names or order) that are negative in the next one."""
    names, tensors = list(before), list(before.values())
    found = []
    for i in range(1, len(names)):
        mean, variance = tensors[i - 1], tensors[i]
        if not _are_vectors(mean, variance):
            continue
        are_buffers = {names[i - 1], names[i]} <= before.buffers
        has_counter = i + 1 < len(names) and _is_counter(tensors[i + 1])
        is_one = _last_part(names[i]) in VARIANCES or are_buffers or has_counter
        if is_one and bool((variance >= 0).all()) and bool((after[names[i]] < 0).any()):
            found.append(names[i])
    return found


def _are_vectors(one: Tensor, other: Tensor) -> bool:
    """Whether both are floating-point vectors of the same length."""
    are_floating = one.is_floating_point() and other.is_floating_point()
    return are_floating and one.dim() == 1 and one.shape == other.shape and one.numel() > 0


def _is_counter(tensor: Tensor) -> bool:
    return tensor.dim() == 0 and not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)


def _last_part(name: str) -> str:
    return re.split(r"[./]", name)[-1].removesuffix(":0")  # Keras: batch_normalization/moving_mean:0


def _listed(weights: Weights, path: Path) -> list[str] | None:
    """The list in the metadata; None if there is no metadata, or no such list in it."""
    beside = metadata_path(path)
    if not (beside.exists() or beside.is_symlink()):
        return None
    metadata = read_metadata(path)
    if KEY not in metadata:
        return None
    listed = metadata[KEY]
    names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    if not isinstance(listed, list) or len(names) != len(listed):
        raise ModelFileError(
            f"{beside}: {KEY!r} must be a list of tensor names",
            hint=f'for example {{"{KEY}": ["bn.running_mean", "bn.running_var"]}}',
            path=str(beside),
        )
    for name in names:
        if name not in weights:
            raise ModelFileError(
                f"{beside}: {KEY!r} lists {name!r}, which is not a tensor of the model{nearest(name, weights)}",
                hint=f"its tensors: {_some(weights)}",
                path=str(beside),
                tensor=name,
            )
    return names


def _some(weights: Weights) -> str:
    names = list(weights)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
