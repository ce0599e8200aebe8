"""Entry points that FEDn's and Scaleout's clients do not call with the paths of two models.

A client with callbacks, or a file to import, is run by ``runtime/path/_fedpkg_callbacks.py``, which calls one callback
for one task; ``forward`` and ``backward`` of split learning are run by ``_fedpkg_split.py``.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from fedpkg.python_source import parsed

CLIENT = "client"  # the entry point that stands for the callbacks
CALLBACKS = ("train", "validate", "predict")
SPLIT = ("forward", "backward")
RUNNER, SPLIT_RUNNER = "_fedpkg_callbacks", "_fedpkg_split"
_CLASSES = ("FednClient", "EdgeClient")
_COMMAND = re.compile(
    r"(?P<python>\S*\bpython[\d.]*)\s+(-u\s+)?(?P<script>[^\s'\"$`*?;&|<>()-]\S*\.py)(?P<own>(\s.*)?)"
)
_FILE = re.compile(r"[\w./-]+\.py", re.ASCII)
_BIGGEST_SOURCE = 1 << 20


def commands_of_client(command: str) -> dict[str, str] | None:
    """The commands of the callbacks of ``python client.py``; None for other commands."""
    found = _COMMAND.fullmatch(command)
    if found is None:
        return None
    rest = f"script {found['script']}{found['own']} --"
    return {name: f"{found['python']} -m {RUNNER} {name} {rest}" for name in CALLBACKS}


def commands_of_import(name: str, file: str) -> dict[str, str] | None:
    """The commands for files that Scaleout's client imports: ``startup: startup.py``, ``build: …``; None for others."""
    if name == "startup" and _FILE.fullmatch(file):
        return {one: f"python -m {RUNNER} {one} startup {file} --" for one in CALLBACKS}
    command = command_of_function(name, file) if name == "build" else None
    return None if command is None else {name: command}


def command_of_function(name: str, file: str) -> str | None:
    """The command that calls a function in a file, with the appended path if it takes one."""
    return f"python -m {RUNNER} {name} import {file} --" if _FILE.fullmatch(file) else None


def command_of_saving(file: str) -> str | None:
    """The command that runs a file whose models, as it saves them by FEDn's helpers, are saved at the appended path."""
    return f"python -m {RUNNER} build saved {file} --" if _FILE.fullmatch(file) else None


def command_of_split(name: str, command: str) -> str:
    """The command of ``forward`` or ``backward``; it is unchanged if it does not run a Python script."""
    found = _COMMAND.fullmatch(command)
    if found is None:
        return command
    return f"{found['python']} -m {SPLIT_RUNNER} {name} {found['script']}{found['own']} --"


def script_of_runner(words: list[str]) -> str | None:
    """The script in such a command."""
    places = {RUNNER: 5, SPLIT_RUNNER: 4}
    place = places.get(words[2]) if len(words) > 2 and words[1] == "-m" else None
    return None if place is None or len(words) <= place else words[place]


def client_scripts(folder: Path) -> list[str]:
    """Programs in ``folder`` that make a client with callbacks, found by parsing; only client.py, if it is one."""
    found = [path.name for path in sorted(folder.glob("*.py")) if _makes_client(path)]
    return [f"{CLIENT}.py"] if f"{CLIENT}.py" in found else found


def _makes_client(path: Path) -> bool:
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > _BIGGEST_SOURCE:
            return False
        text = path.read_bytes()
        if not any(name.encode() in text for name in _CLASSES):
            return False
        return any(_is_client(node) for node in ast.walk(parsed(text)))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _is_client(node: ast.AST) -> bool:
    named = [node.func] if isinstance(node, ast.Call) else node.bases if isinstance(node, ast.ClassDef) else []
    return any(getattr(one, "id", getattr(one, "attr", None)) in _CLASSES for one in named)


def spec_of(script: str) -> str:
    """The text of a fedn.yaml for this program, in a folder without one."""
    return f"# {script} makes a client with callbacks\nentry_points:\n  {CLIENT}:\n    command: python {script}\n"
