"""Reads files of ``torch.save()``, without running code from them."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from fedpkg.files import open_regular

_ZIP, _PICKLE = b"PK\3\4", b"\x80"  # how files of torch.save() begin: since torch 1.6, and before


def is_torch_file(path: Path) -> bool:
    """Whether ``torch.save()`` of torch 1.6 or later wrote this file, by its content."""
    try:
        with open_regular(path) as file:
            if file.read(4) != _ZIP:
                return False
            with zipfile.ZipFile(file) as archive:
                return any(name.endswith("/data.pkl") for name in archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return False


def load_torch(path: Path, *, mapped: bool = False) -> Any:
    """The content of a .pt file on the CPU; ``mapped`` if possible (files from before torch 1.6 cannot be).

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If it is damaged or contains other objects than plain data and tensors; the message can follow a
            colon. Torch's own messages advise to load the file unsafely.
    """
    with open_regular(path) as file:
        start = file.read(4)
    if start != _ZIP and start[:1] != _PICKLE:
        raise ValueError("torch.save() did not write it")
    try:
        with warnings.catch_warnings():  # torch warns, and then fails anyway
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and start == _ZIP)
    except pickle.UnpicklingError as error:
        stranger = re.search(r"(?:GLOBAL|class) (\S+)", str(error))  # "class": before PyTorch 2.4
        found = f" (found {stranger[1]})" if stranger else ""
        raise ValueError(f"it contains other objects than tensors, which are never loaded{found}") from error
    except Exception as error:  # torch can raise anything on a damaged file
        raise ValueError("it is damaged, or torch.save() did not write it") from error
