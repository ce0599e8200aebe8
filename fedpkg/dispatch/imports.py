"""Which modules a package's scripts import, found by parsing them, never by running them."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable
from pathlib import Path

MOST_FILES = 500
BIGGEST_FILE = 1 << 20
USES_NUMPY = ("fedn", "scaleoututil")  # their helpers import it when they are first asked for one


def imports_of(folder: Path, scripts: Iterable[str] = ()) -> list[str]:
    """Dotted names of modules that the Python files below ``folder`` import absolutely, without the package's own.

    ``scripts`` are further files (relative to ``folder``) that are Python whatever their name. Files that do not parse
    are skipped: the task itself will say what is wrong with them.
    """
    files = [path for path in sorted(folder.rglob("*.py")) if path.is_file()][:MOST_FILES]
    named = [folder / script for script in scripts if (folder / script).is_file()]
    own = {path.stem for path in files} | {path.name for path in folder.rglob("*") if path.is_dir()}
    found: dict[str, None] = {}  # a dict keeps the order of the files
    for path in dict.fromkeys([*named, *files]):
        for name in _imports_of_file(path):
            if name.partition(".")[0] not in own:
                found[name] = None
    if any(name.partition(".")[0] in USES_NUMPY for name in found):
        found["numpy"] = None
    return list(found)


def own_modules(folder: Path, scripts: Iterable[str] = ()) -> list[str]:
    """Names of the modules that scripts can import from their own folder, and ``python -m`` from ``folder``."""
    folders = {folder, *((folder / script).parent for script in scripts)}
    found = {path.stem for place in folders for path in place.glob("*.py")}
    found |= {path.parent.name for place in folders for path in place.glob("*/__init__.py")}
    return sorted(found)


def _imports_of_file(path: Path) -> list[str]:
    try:
        if path.stat().st_size > BIGGEST_FILE:
            return []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes and the like are the package's own affair
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.append(node.module)
    return [name for name in names if name != "__future__"]
