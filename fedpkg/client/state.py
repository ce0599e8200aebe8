"""A client's state from round to round: named tensors, in files of its state folder."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from fedpkg.client import arrays
from fedpkg.client.errors import ClientError
from fedpkg.client.task import task

if TYPE_CHECKING:
    from torch import Tensor

_NAME = re.compile(r"[A-Za-z0-9_-]+")


def keep(name: str, tensors: Mapping[str, Tensor]) -> None:
    """Keep tensors under a name for this client's later tasks; without FEDPKG_STATE_DIR (by hand) nothing is kept.

    If the task fails, the client's earlier state remains.
    """
    path = _path(name)
    if path is not None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        arrays.write(path, tensors)


def kept(name: str) -> dict[str, Tensor] | None:
    """The tensors last kept under a name; None if there are none."""
    path = _path(name)
    return arrays.read(path) if path is not None and os.path.exists(path) else None


def _path(name: str) -> str | None:
    if not _NAME.fullmatch(name):
        raise ClientError(f"{name!r} cannot be a name for kept tensors", "use letters, digits, '_' and '-'")
    folder = task().state_folder
    return None if folder is None else os.path.join(folder, f"fedpkg-{name}.safetensors")
