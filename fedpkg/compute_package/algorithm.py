"""A folder as a federated algorithm: its module, and its central and partial functions, found without importing it.

The module is the one that PKG_NAME in a Dockerfile names, or setup.py or pyproject.toml, or the only package.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fedpkg.errors import PackageError, nearest
from fedpkg.files import read_bounded
from fedpkg.python_source import parsed
from fedpkg.shown import shown
from fedpkg.toml_places import NotToml, read_toml

RUNNER = "_fedpkg_algorithm_node"  # the program of a task, in runtime/path
NOT_ALLOWED_CODE = 77  # with which that program ends if the node's policy does not allow the call
SAID = "fedpkg: "  # begins the last line of its standard error, which is the reason
ENTRY_POINT = "partial"
SERVED = ("vantage6-client", "vantage6-common", "vantage6-algorithm-tools", "vantage6")  # which fedpkg stands in for
RPC = "RPC_"

Kind = Literal["central", "partial"]
Era = Literal["v3", "v4", "v5"]

_MAX_BYTES = 1 << 20
_NAMED = re.compile(r"^\s*(?:ARG|ENV)\s+PKG_NAME(?:\s*=\s*|\s+)(['\"]?)([^'\"\s$]+)\1\s*$", re.MULTILINE)
_NO_PACKAGES = frozenset(("tests", "test", "docs", "doc", "examples", "build", "dist", "data", "local", "local_data"))
_CENTRAL = ("central", "algorithm_client")
_OF_5 = ("central", "federated", "dataframe", "dataframes")
_INJECTED = (*_OF_5, "data", "algorithm_client", "metadata", "database_connection")


@dataclass(frozen=True)
class Parameter:
    """An argument that callers give. ``default`` and ``annotation`` are as in the source; None: there is none."""

    name: str
    annotation: str | None = None
    default: str | None = None
    is_keyword: bool = False


@dataclass(frozen=True)
class Function:
    """A function that can be called. ``name`` is what callers write: without ``RPC_``."""

    name: str
    kind: Kind
    era: Era
    parameters: tuple[Parameter, ...] = ()
    takes_any: bool = False  # *args or **kwargs
    doc: str = ""
    file: str = ""
    line: int = 0

    @property
    def signature(self) -> str:
        """The arguments that callers give, as they would be written."""
        said = []
        for one in self.parameters:
            text = one.name if one.annotation is None else f"{one.name}: {one.annotation}"
            said.append(text if one.default is None else f"{text} = {one.default}")
        return ", ".join([*said, *(("…",) if self.takes_any else ())])


@dataclass(frozen=True)
class Algorithm:
    """A folder with an algorithm. ``found_by`` says where the name of its module is from."""

    folder: Path
    module: str
    found_by: str
    functions: Mapping[tuple[Kind, str], Function] = field(default_factory=dict)

    def function(self, name: str) -> Function:
        """The function that callers call by this name; a central one, if there is also a partial one.

        Raises:
            PackageError: there is none.
        """
        name = name.removeprefix(RPC)
        found = self.functions.get(("central", name)) or self.functions.get(("partial", name))
        if found is not None:
            return found
        known = list(dict.fromkeys(one.name for one in self.functions.values()))
        raise PackageError(
            f"{self.folder}: the algorithm {self.module} has no function '{shown(name)}'{nearest(name, known)}",
            hint=f"it has: {', '.join(known) or 'no function that can be called'} (fedpkg algorithm list "
            f"{shlex.quote(str(self.folder))})",
            path=str(self.folder),
        )


def read_algorithm(folder: Path, module: str | None = None) -> Algorithm:
    """The algorithm in a folder; ``module``: its module, if that is known.

    Raises:
        PackageError: the folder has no module, or several.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise PackageError(f"{folder} {what}", hint="give the folder of an algorithm", path=str(folder))
    found_by = "as given"
    if module is None:
        module, found_by = _module_of(folder)
    if _file_of(folder, module) is None:
        there = _packages(folder)
        raise PackageError(
            f"{folder}: there is no package '{shown(module)}', which is the algorithm's module {found_by}",
            hint=f"the folder has: {', '.join(there) or 'no packages'}",
            path=str(folder),
        )
    return Algorithm(folder, module, found_by, {(one.kind, one.name): one for one in _functions(folder, module)})


def command_of(module: str) -> str:
    """The command of the entry point that calls functions of a module."""
    return shlex.join(["python", "-m", RUNNER, module])


def spec_text(module: str) -> str:
    """The text of the fedn.yaml of an algorithm: its entry point calls functions of its module."""
    lines = ["# The functions of a federated algorithm.", "entry_points:"]
    return "\n".join([*lines, f"  {ENTRY_POINT}: {{command: {json.dumps(command_of(module))}}}", ""])


# ---------------------------------------------------------------- its module


def _module_of(folder: Path) -> tuple[str, str]:
    """The name of the module, and where it is from."""
    for path in sorted(folder.glob("Dockerfile*")):
        if named := _NAMED.findall(_text(path)):
            return _module_called(folder, named[-1][1]), f"by PKG_NAME in {path.name}"
    there = _packages(folder)
    for name, read in (("setup.py", _of_setup), ("pyproject.toml", _of_pyproject)):
        if (folder / name).is_file() and (found := read(_text(folder / name))):
            module = _module_called(folder, found)
            if _file_of(folder, module) is not None or not there:
                return module, f"by the name in {name}"
    if len(there) == 1:
        return there[0], "as the only package"
    what = f"several packages ({', '.join(there)})" if there else "no package with an __init__.py, and no module"
    hint = "say which one is the algorithm's: ARG PKG_NAME=… in a Dockerfile, or --module NAME"
    raise PackageError(f"{folder} has {what}", hint=hint, path=str(folder))


def _module_called(folder: Path, name: str) -> str:
    """The module of a distribution: hyphens in its name may be underscores in the folder's."""
    for one in (name, name.replace("-", "_"), name.replace("_", "-")):
        if _file_of(folder, one) is not None:
            return one
    return name


def _packages(folder: Path) -> list[str]:
    found = sorted(path.parent.name for path in folder.glob("*/__init__.py"))
    found = [name for name in found if name.lower() not in _NO_PACKAGES and not name.startswith(".")]
    if found:
        return found
    return [path.stem for path in sorted(folder.glob("*.py")) if path.name not in ("setup.py", "conftest.py")]


def _file_of(folder: Path, module: str) -> Path | None:
    """The file of a module inside the folder. A name may have hyphens; it must not lead outside."""
    parts = module.split(".")
    if not all(re.fullmatch(r"[A-Za-z0-9_-]+", part, re.ASCII) for part in parts):
        return None
    place = folder.joinpath(*parts)
    return next((path for path in (place / "__init__.py", place.with_name(f"{parts[-1]}.py")) if path.is_file()), None)


def _text(path: Path) -> str:
    try:
        return read_bounded(path, _MAX_BYTES).decode("utf-8-sig", errors="replace")
    except OSError:
        return ""


def _of_setup(text: str) -> str | None:
    try:
        tree = parsed(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "setup":
            for word in node.keywords:
                if word.arg == "name" and isinstance(word.value, ast.Constant) and isinstance(word.value.value, str):
                    return word.value.value
    return None


def _of_pyproject(text: str) -> str | None:
    try:
        project = read_toml(text).get("project")
    except (NotToml, RecursionError):
        return None
    name = project.get("name") if isinstance(project, dict) else None
    return name if isinstance(name, str) else None


# ---------------------------------------------------------------- its functions


class _Source:
    """The files of the algorithm, parsed when a name leads to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, dict[str, tuple[ast.FunctionDef, Path]]] = {}  # of modules, also of unfinished ones
        self._trees: dict[Path, ast.Module | None] = {}

    def tree(self, path: Path) -> ast.Module | None:
        if path not in self._trees:
            try:
                self._trees[path] = parsed(read_bounded(path, _MAX_BYTES))
            except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
                self._trees[path] = None
        return self._trees[path]

    def file(self, module: str) -> Path | None:
        return _file_of(self.folder, module) if module else None


def _functions(folder: Path, module: str) -> Iterator[Function]:
    source = _Source(folder)
    there = {name: (node, path, list(_decorators(node))) for name, (node, path) in _names(source, module).items()}
    has_decorators = any(decorators for *_, decorators in there.values())
    for name, (node, path, decorators) in there.items():
        inside = str(path.relative_to(folder))
        if decorators:
            yield _decorated(name, node, decorators, inside)
        elif name.startswith(RPC):
            yield _function(name.removeprefix(RPC), node, "partial", "v3", 1, inside)
        elif not has_decorators and not name.startswith("_") and _words(node)[:1] == ["client"]:
            yield _function(name, node, "central", "v3", 2, inside)


def _names(source: _Source, module: str) -> dict[str, tuple[ast.FunctionDef, Path]]:
    """The functions that a module has, also those that it imports from the algorithm's other modules.

    As in Python, a module that is imported while it imports others has what it has defined so far.
    """
    if module in source.names:
        return source.names[module]
    path = source.file(module)
    tree = None if path is None else source.tree(path)
    found = source.names[module] = {}
    if tree is None or path is None:
        return found
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in _statements(tree.body):
        if isinstance(node, ast.FunctionDef):
            found[node.name] = (node, path)
        elif isinstance(node, ast.ImportFrom):
            there = _names(source, _absolute(node, package))
            for alias in node.names:
                if alias.name == "*":
                    found.update(there)
                elif alias.name in there:
                    found[alias.asname or alias.name] = there[alias.name]
    return found


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, (ast.If, ast.Try, ast.With)):
            yield from _statements([*node.body, *getattr(node, "orelse", [])])


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])


def _decorators(node: ast.FunctionDef) -> Iterator[tuple[str, ast.expr]]:
    """The decorators of algorithms, by name."""
    for one in node.decorator_list:
        called = one.func if isinstance(one, ast.Call) else one
        name = getattr(called, "id", getattr(called, "attr", ""))
        if name in _INJECTED:
            yield name, one


def _decorated(name: str, node: ast.FunctionDef, decorators: Sequence[tuple[str, ast.expr]], file: str) -> Function:
    names = [one for one, _ in decorators]
    era: Era = "v5" if set(_OF_5) & set(names) else "v4"
    kind: Kind = "central" if set(_CENTRAL) & set(names) else "partial"
    skip = sum(_supplied(one, call) for one, call in decorators)
    return _function(name, node, kind, era, skip, file)


def _supplied(decorator: str, node: ast.expr) -> int:
    """The number of arguments that a decorator supplies."""
    if decorator in ("central", "federated"):
        return 0
    given = [*node.args, *(word.value for word in node.keywords)] if isinstance(node, ast.Call) else []
    if decorator in ("data", "dataframe") and given:  # a number of frames, or "multiple": a group of them
        values = [one.value if isinstance(one, ast.Constant) else 1 for one in given]
        return sum(one if type(one) is int else 1 for one in values)
    return 1


def _words(node: ast.FunctionDef) -> list[str]:
    return [one.arg for one in (*node.args.posonlyargs, *node.args.args)]


def _function(name: str, node: ast.FunctionDef, kind: Kind, era: Era, skip: int, file: str) -> Function:
    """``skip``: the number of arguments that the runner gives, such as the client and the data."""
    positional = [*node.args.posonlyargs, *node.args.args]
    defaults = [None] * (len(positional) - len(node.args.defaults)) + [*node.args.defaults]
    found = [_parameter(arg, default) for arg, default in list(zip(positional, defaults, strict=True))[skip:]]
    found += [
        _parameter(arg, default, is_keyword=True)
        for arg, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    ]
    return Function(
        name=name,
        kind=kind,
        era=era,
        parameters=tuple(found),
        takes_any=node.args.vararg is not None or node.args.kwarg is not None,
        doc=ast.get_docstring(node) or "",
        file=file,
        line=node.lineno,
    )


def _parameter(arg: ast.arg, default: ast.expr | None, *, is_keyword: bool = False) -> Parameter:
    annotation = None if arg.annotation is None else ast.unparse(arg.annotation)
    return Parameter(arg.arg, annotation, None if default is None else ast.unparse(default), is_keyword)
