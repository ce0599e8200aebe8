"""Finds the imports of a package's scripts by parsing them, never by running them."""

from __future__ import annotations

import ast
import contextlib
import mmap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from fedpkg.fedn.names import SERVED
from fedpkg.python_source import parsed

MOST_FILES = 500
BIGGEST_FILE = 1 << 20
ALL_FILES = 4 << 20  # parsing takes at most 10 s
PRECOMPILED_BYTES = 1 << 18  # about 0.2 s
USES_NUMPY = (*SERVED, "flwr", "fedpkg")  # their helpers import NumPy at first use


def imports_of(folder: Path, scripts: Iterable[str] = ()) -> list[str]:
    """Dotted names of modules that the Python files below ``folder`` import absolutely, without the package's own.

    ``scripts`` are further files (relative to ``folder``) that are Python whatever their name. Files that do not parse
    are skipped: the task itself will report the error.
    """
    own = own_names(folder)
    found: dict[str, None] = {}  # a dict keeps the order of the files
    for tree in trees_of(folder, scripts).values():
        for name in _imports(tree):
            if name.partition(".")[0] not in own:
                found[name] = None
    if any(name.partition(".")[0] in USES_NUMPY for name in found):
        found["numpy"] = None
    if "fedpkg" in found:
        found["fedpkg.client"] = None  # ``from fedpkg import client``
    return list(found)


def own_names(folder: Path) -> set[str]:
    """Names of files and folders anywhere below ``folder`` that a script could make importable."""
    return {path.stem for path in python_files(folder)} | {path.name for path in folder.rglob("*") if path.is_dir()}


def own_modules(folder: Path, scripts: Iterable[str] = ()) -> list[str]:
    """Names of the modules that scripts can import from their own folder, and ``python -m`` from ``folder``."""
    folders = {folder, *((folder / script).parent for script in scripts)}
    found = {path.stem for place in folders for path in place.glob("*.py")}
    found |= {path.parent.name for place in folders for path in place.glob("*/__init__.py")}
    return sorted(found)


def sources_of(folder: Path, scripts: Iterable[str] = ()) -> list[Path]:
    """Files that tasks may run or import, scripts first, as many as can be compiled quickly."""
    found, room = [], PRECOMPILED_BYTES
    for path in dict.fromkeys([*(folder / script for script in scripts), *python_files(folder)]):
        try:
            room -= path.stat().st_size
        except OSError:
            continue
        if room < 0:
            break
        found.append(path)
    return found


def mentions(folder: Path, words: Iterable[str]) -> bool:
    """Whether a file below ``folder``, in any language, contains one of the words."""
    wanted = [word.encode() for word in words]
    for path in sorted(folder.rglob("*")):
        with contextlib.suppress(OSError, ValueError):  # ValueError: the file is empty
            if not path.is_file():
                continue
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                if any(content.find(word) >= 0 for word in wanted):
                    return True
    return False


def python_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*.py")) if path.is_file()][:MOST_FILES]


def trees_of(folder: Path, scripts: Iterable[str] = ()) -> dict[Path, ast.Module]:
    """The scripts and the Python files below ``folder``, parsed, up to a total size.

    Files that cannot be parsed, or are too big, are omitted.
    """
    return trees_in(texts_of(folder, scripts))


def trees_in(texts: Mapping[Path, bytes]) -> dict[Path, ast.Module]:
    """The files that can be parsed."""
    trees = {}
    for path, text in texts.items():
        with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
            trees[path] = parsed(text)
    return trees


def texts_of(folder: Path, scripts: Iterable[str] = ()) -> dict[Path, bytes]:
    """The scripts and the Python files below ``folder``, up to a total size; files that are too big are omitted."""
    room = ALL_FILES
    texts = {}
    named = [folder / script for script in scripts if (folder / script).is_file()]
    for path in dict.fromkeys([*named, *python_files(folder)]):
        try:
            size_bytes = path.stat().st_size
            if size_bytes > min(BIGGEST_FILE, room):
                continue
            room -= size_bytes
            texts[path] = path.read_bytes()
        except OSError:
            continue
    return texts


def used_by(script: Path, trees: Mapping[Path, ast.Module]) -> list[ast.Module]:
    """The script, and those of the package's files that it imports, directly or not."""
    used: dict[Path, ast.Module] = {}
    waiting = [script]
    while waiting:
        path = waiting.pop()
        if path not in trees or path in used:
            continue
        used[path] = trees[path]
        for name in _names_imported(trees[path]):
            for folder in (script.parent, path.parent):  # relative imports start here
                place = folder.joinpath(*name.split("."))
                waiting += [place.with_suffix(".py"), place / "__init__.py"]
    return list(used.values())


def _names_imported(tree: ast.AST) -> Iterator[str]:
    """Names that may be modules: for ``from a import b``, both ``a`` and ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from filter(None, [node.module])
            yield from (f"{node.module}.{alias.name}" if node.module else alias.name for alias in node.names)


def _imports(tree: ast.AST) -> list[str]:
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.append(node.module)
    return [name for name in names if name != "__future__"]
