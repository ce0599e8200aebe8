"""What an algorithm imports, reads and sends, found by parsing it: this shows where to look, and proves nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fedpkg.compute_package.algorithm import Algorithm
from fedpkg.compute_package.imports import own_names, trees_of

# What code can use to reach more than the frame that it is given.
_FILES = frozenset(("open", "read_csv", "read_parquet", "read_excel", "read_sql", "read_json", "read_pickle"))
_FILES |= frozenset(("listdir", "glob", "iglob", "walk", "scandir", "read_text", "read_bytes", "load", "connect"))
_VARIABLES = frozenset(("getenv", "environ", "get_env_var"))
_NETWORK = frozenset(("socket", "requests", "urllib", "http", "ftplib", "smtplib", "aiohttp", "httpx", "paramiko"))
_PROCESSES = frozenset(("subprocess", "multiprocessing", "ctypes", "pty", "os.system", "os.popen", "os.fork"))
_CODE = frozenset(("eval", "exec", "compile", "__import__", "import_module", "query"))
_CREATES = frozenset(("create", "create_new_task", "post_task"))
_LONGEST = 120


@dataclass(frozen=True)
class Use:
    """Something in the source, such as a call that reads a file. ``function`` is the one in which it is."""

    what: str
    text: str
    function: str
    file: str
    line: int


@dataclass(frozen=True)
class Review:
    """What was found. ``sends`` are what functions return and the inputs of tasks that they create."""

    imports: tuple[str, ...]
    reads: tuple[Use, ...]
    sends: tuple[Use, ...]


def review_of(algorithm: Algorithm) -> Review:
    """Read the source of an algorithm's module."""
    reads: list[Use] = []
    sends: list[Use] = []
    imports: dict[str, None] = {}
    own = own_names(algorithm.folder)
    called = {(one.file, one.line) for one in algorithm.functions.values()}
    top = algorithm.module.partition(".")[0]
    for path, tree in trees_of(algorithm.folder).items():
        file = str(path.relative_to(algorithm.folder))
        if Path(file).parts[0] not in (top, f"{top}.py"):
            continue
        for node, function, line in _inside(tree):
            imports.update((name, None) for name in _imported(node) if name.partition(".")[0] not in own)
            if what := _reads(node):
                reads.append(_use(what, node, function, file))
            if isinstance(node, ast.Return) and node.value is not None and (file, line) in called:
                sends.append(_use("returns", node.value, function, file))
            if isinstance(node, ast.Call) and _name(node.func) in _CREATES:
                sends.append(_use("creates a task", node, function, file))
    return Review(tuple(sorted(imports)), tuple(reads), tuple(sends))


def _inside(tree: ast.AST, function: str = "", line: int = 0) -> Iterator[tuple[ast.AST, str, int]]:
    """All nodes in the order of the source, with the outermost function around each and its line."""
    for node in ast.iter_child_nodes(tree):
        name, at = function, line
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not function:
            name, at = node.name, node.lineno
        yield node, name, at
        if not (function and isinstance(node, (ast.FunctionDef, ast.Lambda))):
            yield from _inside(node, name, at)
        else:  # what an inner function returns is not what the outer one does
            yield from (one for one in _inside(node, name, at) if not isinstance(one[0], ast.Return))


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and not node.level and node.module != "__future__":
        return [node.module or ""]
    return []


def _reads(node: ast.AST) -> str | None:
    """What a statement or call can be used for, beyond the frame."""
    for what, modules in (("network", _NETWORK), ("processes", _PROCESSES)):
        if any(name.partition(".")[0] in modules for name in _imported(node)):
            return what
    if isinstance(node, ast.Call):
        name, whole = _name(node.func), ast.unparse(node.func)
        if whole in _PROCESSES:
            return "processes"
        for what, names in (("files", _FILES), ("variables", _VARIABLES), ("code from text", _CODE)):
            if name in names:
                return what
    return "variables" if isinstance(node, ast.Attribute) and node.attr == "environ" else None


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _use(what: str, node: ast.AST, function: str, file: str) -> Use:
    text = " ".join(ast.unparse(node).split())
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    return Use(what, text, function, file, getattr(node, "lineno", 0))
