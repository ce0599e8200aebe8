"""Entry points that FEDn's and Scaleout's clients call in another way than with the paths of two models.

A client with callbacks, or a file to import, runs by ``runtime/path/_fedpkg_callbacks.py``, which calls one callback
for one task; ``forward`` and ``backward`` of split learning run by ``_fedpkg_split.py``.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

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
    """``python client.py`` as the commands of its callbacks; None: it is another command."""
    found = _COMMAND.fullmatch(command)
    if found is None:
        return None
    rest = f"script {found['script']}{found['own']} --"
    return {name: f"{found['python']} -m {RUNNER} {name} {rest}" for name in CALLBACKS}


def commands_of_import(name: str, file: str) -> dict[str, str] | None:
    """What Scaleout's client imports: ``startup: startup.py``, whose function registers callbacks, or ``build: …``."""
    if name == "startup" and _FILE.fullmatch(file):
        return {one: f"python -m {RUNNER} {one} startup {file} --" for one in CALLBACKS}
    command = command_of_function(name, file) if name == "build" else None
    return None if command is None else {name: command}


def command_of_function(name: str, file: str) -> str | None:
    """A call of a function in a file: with the path that is appended, if it takes one."""
    return f"python -m {RUNNER} {name} import {file} --" if _FILE.fullmatch(file) else None


def command_of_split(name: str, command: str) -> str:
    """The command of ``forward`` or ``backward``; one that is no Python script stays as it is."""
    found = _COMMAND.fullmatch(command)
    if found is None:
        return command
    return f"{found['python']} -m {SPLIT_RUNNER} {name} {found['script']}{found['own']} --"


def script_of_runner(words: list[str]) -> str | None:
    """The script of such a command."""
    places = {RUNNER: 5, SPLIT_RUNNER: 4}
    place = places.get(words[2]) if len(words) > 2 and words[1] == "-m" else None
    return None if place is None or len(words) <= place else words[place]


def client_scripts(folder: Path) -> list[str]:
    """Programs in ``folder`` that make a client with callbacks; found by parsing. A client.py among them is the one."""
    found = [path.name for path in sorted(folder.glob("*.py")) if _makes_client(path)]
    return [f"{CLIENT}.py"] if f"{CLIENT}.py" in found else found


def _makes_client(path: Path) -> bool:
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > _BIGGEST_SOURCE:
            return False
        text = path.read_bytes()
        if not any(name.encode() in text for name in _CLASSES):
            return False
        return any(_is_client(node) for node in ast.walk(ast.parse(text)))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _is_client(node: ast.AST) -> bool:
    named = [node.func] if isinstance(node, ast.Call) else node.bases if isinstance(node, ast.ClassDef) else []
    return any(getattr(one, "id", getattr(one, "attr", None)) in _CLASSES for one in named)


def spec_of(script: str) -> str:
    """The fedn.yaml of a folder that has none, and this program."""
    return f"# {script} makes a client with callbacks\nentry_points:\n  {CLIENT}:\n    command: python {script}\n"
