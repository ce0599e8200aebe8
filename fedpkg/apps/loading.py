"""Finds the object of an app: ``module:name``, in the folder of the app."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any


def find_object(reference: str, kind: str) -> Any:
    """The object ``module:name`` of the app in the current folder.

    Args:
        kind: The class that it should have, for the error.

    Raises:
        ImportError: The module has no such object. Importing it may raise anything.
    """
    module, _, name = reference.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        if not hasattr(found, part):
            raise ImportError(f"{reference}: the module {module} has no '{part}'; write: {part} = {kind}()")
        found = getattr(found, part)
    return found


def is_installed(app: object) -> bool:
    """Whether an object's class is one of an installed flwr, which runs its own."""
    return type(app).__module__.partition(".")[0] == "flwr"
