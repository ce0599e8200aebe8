"""Which of a model's tensors are buffers (running means, counters): seed models say so, or their names do."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from pathlib import Path

from fedpkg.errors import ConfigError, ModelFileError, nearest
from fedpkg.formats.metadata import metadata_path, read_metadata
from fedpkg.weights.weights import Weights

KEY = "buffers"  # in the seed's metadata, and in a run's configuration
USUAL_NAMES = ("running_mean", "running_var", "num_batches_tracked")  # of PyTorch's normalising layers


def with_buffers(weights: Weights, path: Path, *, patterns: Sequence[str] = ()) -> Weights:
    """A seed model with its buffers told apart: those that the metadata beside ``path`` lists, else the usual names.

    Args:
        patterns: of the run's configuration (``"*.ema"``); what they match is a buffer too.

    Raises:
        ModelFileError: the metadata is damaged, or lists what is no tensor of the model.
        ConfigError: a pattern matches no tensor.
    """
    listed = _listed(weights, path)
    found = set(_usual(weights) if listed is None else listed)
    for pattern in patterns:
        matching = [name for name in weights if fnmatch.fnmatchcase(name, pattern)]
        if not matching:
            raise ConfigError(
                f"{KEY}: {pattern!r} matches no tensor of {path.name}{nearest(pattern, weights)}",
                hint=f"a pattern is a tensor's name, or part of one with '*': {_some(weights)}",
                key=KEY,
            )
        found.update(matching)
    return Weights(weights, buffers=found)


def _usual(names: Iterable[str]) -> list[str]:
    return [name for name in names if name.rpartition(".")[2] in USUAL_NAMES]


def _listed(weights: Weights, path: Path) -> list[str] | None:
    """What the metadata lists; None if there is none, or it says nothing of buffers."""
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
                f"{beside}: {KEY!r} lists {name!r}, which is no tensor of the model{nearest(name, weights)}",
                hint=f"its tensors: {_some(weights)}",
                path=str(beside),
                tensor=name,
            )
    return names


def _some(weights: Weights) -> str:
    names = list(weights)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
