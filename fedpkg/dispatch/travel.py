"""The way of an update from its client to the controller, through the transforms that were asked for.

What a task wrote never leaves its client as it is: it is encoded at the client's end, and the controller gets what it
can decode of that. Here both ends are on one machine, and the bytes in between are a file.
"""

from __future__ import annotations

import dataclasses
import json
import stat
from typing import TYPE_CHECKING

from fedpkg.dispatch.base import Task
from fedpkg.dispatch.collect import Refused, Reply, read_reply
from fedpkg.errors import ModelFileError
from fedpkg.files import atomic_write, remove_tree
from fedpkg.formats.metadata import metadata_path

if TYPE_CHECKING:
    from torch import Tensor

    from fedpkg.transforms.chain import Chain

LOST = "lost.safetensors"  # in a version of the client's state: what error feedback adds to its next update
SENT, RECEIVED = "sent", "received.safetensors"


def travelled(task: Task, reply: Reply, chain: Chain) -> Reply:
    """The reply as the controller gets it: decoded again, and checked.

    Raises:
        Refused: what arrives is not as asked; or somebody spoilt what the client keeps.
    """
    from fedpkg.formats.base import ModelForm
    from fedpkg.formats.model_file import write_model

    assert reply.weights is not None and task.template is not None
    is_difference = task.content != "weights"
    lost = _read_lost(task) if chain.feeds_back else None
    sent = chain.encode(reply.weights, task.template, seed=task.seed, is_difference=is_difference, lost=lost)
    place = reply.path.parent
    (place / SENT).write_bytes(sent.content)
    try:
        weights, facts = chain.decode(place / SENT, task.template, is_difference=is_difference)
    except ModelFileError as error:
        raise Refused("bad_file", error.message) from error
    remove_tree(metadata_path(reply.path))
    reply.path.unlink()  # what is mapped of it stays while somebody has it
    path = place / RECEIVED
    write_model(path, weights, ModelForm(".safetensors"))
    metadata_path(path).write_text(json.dumps({**reply.metadata, **facts}))
    arrived = read_reply(task, path, size_bytes=path.stat().st_size)
    if sent.lost is not None:
        _write_lost(task, sent.lost)
    return dataclasses.replace(arrived, sent_bytes=len(sent.content), converted=reply.converted)


def _read_lost(task: Task) -> Tensor | None:
    """What is still owed from the client's earlier updates; it lies where the client's own tasks can write."""
    from fedpkg.formats.model_file import read_model

    path = task.next_state / LOST
    try:
        is_file = stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return None
    try:
        most = 0 if task.template is None else 8 * 2 * task.template.num_parameters + (1 << 16)
        found = read_model(path, max_bytes=most).get("lost") if is_file else None
    except ModelFileError as error:
        raise Refused("bad_file", f"what error feedback kept is damaged: {error.message}") from error
    if found is None or found.ndim != 1 or not bool(found.isfinite().all()):
        raise Refused("bad_file", f"what error feedback kept in '{LOST}' is no longer that")
    return found.clone()


def _write_lost(task: Task, lost: Tensor) -> None:
    from fedpkg.formats.base import ModelForm
    from fedpkg.formats.model_file import dump_model
    from fedpkg.weights.weights import Weights

    if task.next_state.is_symlink() or not task.next_state.is_dir():
        raise Refused("bad_file", "the folder of its state is gone: there is no place for what error feedback keeps")
    with atomic_write(task.next_state / LOST) as file:
        dump_model(file, Weights({"lost": lost}), ModelForm(".safetensors"))
