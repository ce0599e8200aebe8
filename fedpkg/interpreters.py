"""How a task's commands find their interpreter as ``python`` and ``python3``."""

from __future__ import annotations

import functools
import os
from pathlib import Path

COMMANDS = Path(__file__).resolve().parent / "runtime" / "commands"  # `python`, for interpreters without one


@functools.lru_cache(maxsize=64)
def folders_of(python: Path) -> tuple[str, ...]:
    """The folders to put first on PATH, so that ``python`` and ``python3`` are this interpreter."""
    same = (os.path.realpath(python.parent / name) == os.path.realpath(python) for name in ("python", "python3"))
    if all(same) or not all(os.access(COMMANDS / name, os.X_OK) for name in ("python", "python3")):
        return (str(python.parent),)
    return str(COMMANDS), str(python.parent)


def naming(python: Path) -> dict[str, str]:
    """The variable with the interpreter that fedpkg's own commands run, if they are used."""
    return {"FEDPKG_PYTHON": str(python)} if len(folders_of(python)) > 1 else {}
