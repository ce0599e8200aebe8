"""The way of an update from its client to the controller, through the transforms that were asked for.

What a task wrote never leaves its client as it is: it is encoded where the task ran, and the controller gets what it
can decode of that.
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

LOST = "lost.safetensors"  # in a version of the client's state: what error feedback adds to its next update
SENT, RECEIVED = "sent", "received.safetensors"


def encode(reading: Reading, path: Path, version: Path, sent: Sent, *, seed: int) -> tuple[Path, Checked]:
    """Check an update and put in its place what travels of it: at the client's end.

    Args:
        version: the folder of the client's state, where error feedback keeps what it owes.

    Raises:
        Refused: the update is not as asked; somebody spoilt what the client keeps; or what the update is the change of
            was not sent.
    """
    chain = reading.chain
    assert chain is not None
    metadata, opened = read_metadata_of(path), reading.open(path, sent)
    checked = reading.check_opened(opened, metadata, sent)
    known = reading.known("", sent)
    if known is None:
        raise Refused("mismatch", "transforms are of updates to a model, and the client was sent none")
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
    """Make a file of the update of what has travelled, check it and say where it is: at the controller's end.

    Raises:
        Refused: what arrived is not as asked.
        OSError: what it decodes to cannot be written.
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
    """What is still owed from the client's earlier updates; it lies where the client's own tasks can write."""
    from fedpkg.formats.model_file import read_model

    path = version / LOST
    try:
        is_file = stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return None
    try:
        found = read_model(path, max_bytes=8 * 2 * known.num_parameters + (1 << 16)).get("lost") if is_file else None
    except ModelFileError as error:
        raise Refused("bad_file", f"what error feedback kept is damaged: {error.message}") from error
    if found is None or found.ndim != 1 or not bool(found.isfinite().all()):
        raise Refused("bad_file", f"what error feedback kept in '{LOST}' is no longer that")
    return found.clone()


def _write_lost(version: Path, lost: Tensor) -> None:
    from fedpkg.formats.base import ModelForm
    from fedpkg.formats.model_file import dump_model
    from fedpkg.weights.weights import Weights

    if version.is_symlink() or not version.is_dir():
        raise Refused("bad_file", "the folder of its state is gone: there is no place for what error feedback keeps")
    with atomic_write(version / LOST) as file:
        dump_model(file, Weights({"lost": lost}), ModelForm(".safetensors"))
