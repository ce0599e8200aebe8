"""Finds the paths and options in a package's scripts by parsing them, never by running them."""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedpkg.files import walk
from fedpkg.python_source import parsed

SUFFIXES = (".py", ".sh", ".R", ".r", "")
_BIGGEST_SOURCE = 1 << 20
_ALL_SOURCES = 4 << 20  # parsing takes at most 10 s: an untrusted package may have gigabytes of sources
_SAME = ("abspath", "realpath", "normpath", "fspath", "str", "Path", "PurePath", "PosixPath", "resolve", "absolute")
_HERE = ("getcwd", "cwd")
_ASKS = ("exists", "isfile", "isdir", "is_file", "is_dir")
_DEEPEST = 50


@dataclass(frozen=True)
class Named:
    """A path in a script, relative to the folder of fedn.yaml, and the place of its use.

    ``whole``: the path is complete, with no part that is known only at run time.
    """

    path: str
    place: str  # train.py:12
    whole: bool = True


@dataclass(frozen=True)
class _Text:
    text: str
    whole: bool = True


class Sources:
    """The source files of a package's programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.texts: dict[Path, str] = {}
        left_bytes = _ALL_SOURCES
        entries = (Path(entry.path) for _, entries in walk(folder) for entry in entries if entry.is_file())
        for path in sorted(path for path in entries if path.suffix in SUFFIXES):
            size_bytes = path.stat().st_size
            if size_bytes < min(_BIGGEST_SOURCE, left_bytes):
                left_bytes -= size_bytes
                self.texts[path] = path.read_text(errors="replace")
        self.trees = {path: _tree_of(text) for path, text in self.texts.items()}

    def mention(self, word: str) -> str | None:
        """The place of a word, such as `train.py:12`; None if it is not found."""
        pattern = re.compile(rf"(?<![\w-]){re.escape(word)}(?!\w)")
        names = (path.relative_to(self.folder).as_posix() for path in self.texts)
        return next(filter(None, (self.place_of(name, pattern) for name in names)), None)

    def place_of(self, script: str, pattern: re.Pattern[str]) -> str | None:
        """The place of a pattern's first match in a script; None if there is none."""
        text = self.texts.get(self.folder / script, "")
        match = pattern.search(text)
        return None if match is None else f"{script}:{text.count(chr(10), 0, match.start()) + 1}"

    def option(self, words: Sequence[str], entry_point: str, name: str) -> tuple[str, str] | None:
        """The option ``--name`` of the script of a command, as spelled there, and its place.

        It counts only if it is read from the command line: by argparse, click or the like, from ``sys.argv``, or by
        fire, which makes options of a function's parameters.
        """
        for number, word in enumerate(words):
            is_module = number > 0 and words[number - 1] == "-m"
            path = self.folder / (f"{word.replace('.', '/')}.py" if is_module else word)
            if path in self.texts:
                called = {entry_point, *words[number + 1 :]}  # python entrypoint.py train: fire calls train
                return self._option(path, called, name)
        return None

    def _option(self, script: Path, called: set[str], name: str) -> tuple[str, str] | None:
        tree = self.trees[script]
        spelt = {f"--{one}{end}": one for one in (name, name.replace("_", "-")) for end in ("", "=")}
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} | {*_imported(tree)}
        if used & {"argparse", "click", "getopt", "optparse", "typer", "sys", "argv"}:
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in spelt:
                    return spelt[node.value], self._place(script, node.lineno)
        if "fire" not in used:
            return None
        called = called | _handed_to_fire(tree)
        others = (path for path in self.trees if path != script)
        for path in (script, *others):  # the script first, then the files that it imports
            functions = [node for node in ast.walk(self.trees[path]) if isinstance(node, ast.FunctionDef)]
            if called_here := [node for node in functions if node.name in called]:
                found = next((node for node in called_here if _has_parameter(node, name)), None)
                return None if found is None else (name, self._place(path, found.lineno))
        return None

    def named(self) -> list[Named]:
        """Paths in scripts: strings, and expressions of ``__file__``, other strings and variables."""
        found = []
        for path, text in self.texts.items():
            if path.suffix == ".py" or _is_python(text):
                found += [Named(one.path, self._place(path, line), one.whole) for one, line in self._of_python(path)]
            else:
                for number, line in enumerate(text.splitlines(), 1):
                    words = re.split(r"[\s\"'=;(){}]+", line)
                    found += [Named(word, self._place(path, number)) for word in words if word]
        return found

    def asked_for(self) -> Iterator[Named]:
        """Complete paths whose existence a Python script checks."""
        for path, tree in self.trees.items():
            reader = _PathReader(tree, path.relative_to(self.folder).as_posix(), with_defaults=True)
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _ASKS:
                    found = reader.read(node.args[0] if node.args else node.func.value)
                    if found is not None and found.whole:
                        yield Named(found.text, self._place(path, node.lineno))

    def default_of(self, variable: str) -> str | None:
        """The path that Python scripts take where a variable of the environment is not set; None: none is read."""
        for path, tree in self.trees.items():
            reader = _PathReader(tree, path.relative_to(self.folder).as_posix())
            for node in ast.walk(tree):
                if (
                    isinstance(node, ast.Call)
                    and len(node.args) == 2
                    and getattr(node.args[0], "value", "") == variable
                ):
                    found = reader.read(node.args[1])
                    if found is not None and found.whole:
                        return found.text
        return None

    def strings(self) -> Iterator[tuple[str, str]]:
        """All strings in Python files, for whatever use, and their places."""
        for path, tree in self.trees.items():
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value, self._place(path, node.lineno)

    def _of_python(self, path: Path) -> Iterator[tuple[Named, int]]:
        tree = self.trees[path]
        reader = _PathReader(tree, path.relative_to(self.folder).as_posix())
        for found, line in reader.all():
            yield Named(found.text, "", found.whole), line

    def _place(self, path: Path, line: int) -> str:
        return f"{path.relative_to(self.folder).as_posix()}:{line}"


class _PathReader:
    """Evaluates the paths in a module that follow from constants, ``__file__`` and variables that are set once."""

    def __init__(self, tree: ast.AST, script: str, *, with_defaults: bool = False) -> None:
        """``with_defaults``: parameters have their defaults, if all functions agree on them."""
        self._tree = tree
        self._script = script
        self._values: dict[str, list[ast.expr]] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                self._values.setdefault(node.targets[0].id, []).append(node.value)
            elif isinstance(node, ast.FunctionDef) and with_defaults:
                for argument, value in zip(reversed(node.args.args), reversed(node.args.defaults), strict=False):
                    known = self._values.setdefault(argument.arg, [])
                    known += [] if ast.dump(value) in map(ast.dump, known) else [value]

    def all(self) -> Iterator[tuple[_Text, int]]:
        pending: list[ast.AST] = [self._tree]
        while pending:
            node = pending.pop()
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                continue  # a docstring
            if isinstance(node, ast.expr) and (found := self._read(node, 0)) is not None:
                if not isinstance(node, ast.Name):
                    yield found, node.lineno
                if not found.whole:  # what comes next was worked out somewhere, perhaps from another file
                    pending += [one for one in _parts(node) if isinstance(one, ast.expr) and not self._read(one, 0)]
                continue
            pending += _parts(node)

    def read(self, node: ast.expr) -> _Text | None:
        return self._read(node, 0)

    def _read(self, node: ast.expr, depth: int) -> _Text | None:
        if depth > _DEEPEST:
            return None
        if isinstance(node, ast.Constant):
            return _Text(node.value) if isinstance(node.value, str) and "\n" not in node.value else None
        if isinstance(node, ast.Name):
            if node.id == "__file__":
                return _Text(self._script)
            values = self._values.get(node.id, ())
            return self._read(values[0], depth + 1) if len(values) == 1 else None
        if isinstance(node, ast.JoinedStr):
            return self._added(node.values, depth, between="")
        if isinstance(node, ast.FormattedValue):
            return self._read(node.value, depth + 1) or self._number(node.value)
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Div)):
            between = "/" if isinstance(node.op, ast.Div) else ""
            return self._added([node.left, node.right], depth, between=between)
        if isinstance(node, ast.Attribute):
            return self._attribute(node, depth)
        if isinstance(node, ast.Subscript):  # Path(__file__).parents[1]
            of_parents = isinstance(node.value, ast.Attribute) and node.value.attr == "parents"
            if of_parents and isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, int):
                assert isinstance(node.value, ast.Attribute)
                return _up(self._read(node.value.value, depth + 1), min(node.slice.value + 1, _DEEPEST))
            return None
        return self._call(node, depth) if isinstance(node, ast.Call) else None

    def _number(self, node: ast.expr) -> _Text | None:
        values = self._values.get(node.id, ()) if isinstance(node, ast.Name) else (node,)
        known = [one.value for one in values if isinstance(one, ast.Constant) and type(one.value) is int]
        return _Text(str(known[0])) if len(known) == len(values) == 1 else None

    def _attribute(self, node: ast.Attribute, depth: int) -> _Text | None:
        if node.attr == "parent":
            return _up(self._read(node.value, depth + 1))
        if node.attr == "pardir":
            return _Text("..")
        return None

    def _call(self, node: ast.Call, depth: int) -> _Text | None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        arguments: list[ast.expr] = list(node.args)
        if name in _HERE:
            return _Text(".")
        if name == "joinpath" and isinstance(node.func, ast.Attribute):
            return self._added([node.func.value, *arguments], depth, between="/")
        is_of_paths = isinstance(node.func, ast.Name) or ast.unparse(node.func).rpartition(".")[0] in _OS_PATH
        if name == "join" and is_of_paths:
            return self._added(arguments, depth, between="/")
        if name == "dirname" and arguments:
            return _up(self._read(arguments[0], depth + 1))
        if name in _SAME:
            if not arguments and isinstance(node.func, ast.Attribute):  # Path(__file__).resolve()
                return self._read(node.func.value, depth + 1)
            return self._added(arguments, depth, between="/") if arguments else None
        return None

    def _added(self, nodes: Sequence[ast.expr], depth: int, *, between: str) -> _Text | None:
        """Texts concatenated up to the first unknown one; None if the very first is unknown."""
        result: _Text | None = None
        for node in nodes:
            part = self._read(node, depth + 1)
            if result is None:
                result = part
            elif part is None:
                result = _Text(f"{result.text}{between}", whole=False)
            else:
                is_absolute = between == "/" and part.text.startswith("/")
                result = _Text(part.text if is_absolute else f"{result.text}{between}{part.text}", part.whole)
            if result is None or not result.whole:
                break
        return result


_OS_PATH = ("os.path", "path", "osp", "posixpath", "op")


def _up(found: _Text | None, levels: int = 1) -> _Text | None:
    if found is None or not found.whole:
        return None
    path = found.text
    for _ in range(levels):
        path = posixpath.normpath(path)
        path = posixpath.join(path, "..") if path == "." or path.endswith("..") else posixpath.dirname(path) or "."
    return _Text(path)


def _parts(node: ast.AST) -> list[ast.AST]:
    """Child nodes that may contain further paths; if a text's beginning is unknown, its rest is not a path."""
    if isinstance(node, ast.JoinedStr):
        return []
    parts: list[ast.AST] = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Div)):
        return [part for part in parts if part is node.left or not isinstance(part, (ast.Constant, ast.JoinedStr))]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("join", "joinpath"):
        return [part for part in parts if part not in node.args[1:] or not isinstance(part, ast.Constant)]
    return parts


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]


def _handed_to_fire(tree: ast.AST) -> set[str]:
    """Names in the arguments of ``Fire(…)``."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Fire")]
    found = (inner for call in calls for part in call.args for inner in ast.walk(part))
    return {node.id for node in found if isinstance(node, ast.Name)}


def _has_parameter(function: ast.FunctionDef, name: str) -> bool:
    return name in [argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)]


def _is_python(text: str) -> bool:
    """Whether a file without a suffix looks like Python, such as ``entrypoint`` in FEDn's packages up to 0.8."""
    return "python" in text.partition("\n")[0] or re.search(r"^(import|from) \w", text, re.MULTILINE) is not None


def _tree_of(text: str) -> ast.AST:
    try:
        return parsed(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the task itself will report the error
        return ast.Module([], [])
