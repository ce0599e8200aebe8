"""An update's way from its client to the controller, through the configured transforms.

A task's file never leaves its client unencoded: it is encoded where the task ran, and the controller decodes it.
"""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from fedpkg.errors import ModelFileError
from fedpkg.files import atomic_write, remove_tree
from fedpkg.formats.metadata import metadata_path
from fedpkg.replies.reading import Checked, Reading, read_metadata_of
from fedpkg.waist.answer import Refused

if TYPE_CHECKING:
    from torch import Tensor

    from fedpkg.replies.reading import Sent
    from fedpkg.weights.weights import Weights

LOST = (
    "lost.safetensors"  # in a version of the client's state: the residual that error feedback adds to its next update
)
SENT, RECEIVED = "sent", "received.safetensors"


def encode(reading: Reading, path: Path, version: Path, sent: Sent, *, seed: int) -> tuple[Path, Checked]:
    """Check an update and replace it by its encoded message: at the client's end.

    Args:
        version: The folder of the client's state, with the residual of error feedback.

    Raises:
        Refused: If the update is not as requested, the client's state is damaged, or the client was not sent the model
            that the update is a change of.
    """
    chain = reading.chain
    assert chain is not None
    metadata, opened = read_metadata_of(path), reading.open(path, sent)
    checked = reading.check_opened(opened, metadata, sent)
    known = reading.known("", sent)
    if known is None:
        raise Refused("mismatch", "transforms need an update to a model, but the client was sent no model")
    lost = _read_lost(version, known) if chain.feeds_back else None
    message = chain.encode(opened.sets[""], known, seed=seed, is_difference=reading.spec.reply != "weights", lost=lost)
    place = path.with_name(SENT)
    place.write_bytes(message.content)
    if message.lost is not None:
        _write_lost(version, message.lost)
    if metadata_path(path).exists():
        metadata_path(path).rename(metadata_path(place))
    path.unlink()
    return place, checked


def decode(reading: Reading, message: Path, sent: Sent) -> tuple[Path, Checked]:
    """Decode a message to the file of an update, and check it; returns its path: at the controller's end.

    Raises:
        Refused: If the update is not as requested.
        OSError: If the file cannot be written.
    """
    from fedpkg.formats.base import ModelForm
    from fedpkg.formats.model_file import write_model

    chain, known = reading.chain, reading.known("", sent)
    assert chain is not None and known is not None
    try:
        weights, facts = chain.decode(message, known, is_difference=reading.spec.reply != "weights")
    except ModelFileError as error:
        raise Refused("bad_file", error.message) from error
    metadata = {**read_metadata_of(message), **facts}
    remove_tree(metadata_path(message))
    path = message.with_name(RECEIVED)
    try:
        write_model(path, weights, ModelForm(".safetensors"))
    except ModelFileError as error:  # a full disk is not the client's failure
        if isinstance(error.__cause__, OSError):
            raise error.__cause__ from None
        raise
    metadata_path(path).write_text(json.dumps(metadata))
    return path, reading.check_opened(reading.open(path, sent), metadata, sent)


def _read_lost(version: Path, known: Weights) -> Tensor | None:
    """The residual of the client's earlier updates, from a file that the client's own tasks can change."""
    from fedpkg.formats.model_file import read_model

    path = version / LOST
    try:
        is_file = stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return None
    try:
        found = read_model(path, max_bytes=8 * 2 * known.num_parameters + (1 << 16)).get("lost") if is_file else None
    except ModelFileError as error:
        raise Refused("bad_file", f"the residual of error feedback is damaged: {error.message}") from error
    if found is None or found.ndim != 1 or not bool(found.isfinite().all()):
        raise Refused("bad_file", f"the residual of error feedback in '{LOST}' was changed")
    return found.clone()


def _write_lost(version: Path, lost: Tensor) -> None:
    from fedpkg.formats.base import ModelForm
    from fedpkg.formats.model_file import dump_model
    from fedpkg.weights.weights import Weights

    if version.is_symlink() or not version.is_dir():
        raise Refused("bad_file", "the folder of its state is gone, so the residual of error feedback cannot be kept")
    with atomic_write(version / LOST) as file:
        dump_model(file, Weights({"lost": lost}), ModelForm(".safetensors"))
