"""Reads the pyproject.toml of a message app strictly: its ServerApp and ClientApp, its configuration, its nodes.

The modules are parsed, and not imported: an error about a missing object arrives before any code of the app runs.
"""

from __future__ import annotations

import ast
import errno
import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from fedpkg.compute_package.algorithm import RUNNER as ALGORITHM_RUNNER
from fedpkg.errors import SpecError, nearest
from fedpkg.files import read_bounded
from fedpkg.python_source import parsed
from fedpkg.shown import shown
from fedpkg.toml_places import NotToml, line_of, read_toml
from fedpkg.types import leaves

APP_FILE = "pyproject.toml"
# Programs in runtime/path: they pass messages to the ClientApp, give it model files, and run the ServerApp.
RUNNER, MODEL_RUNNER, SERVER_RUNNER = "_fedpkg_client_app", "_fedpkg_model_app", "_fedpkg_server_app"
# Modules that programs of fedpkg import first; the program of algorithms reads data frames.
RUN_BY = {
    RUNNER: ("fedpkg.apps.client_program",),
    MODEL_RUNNER: ("fedpkg.apps.model_program",),
    SERVER_RUNNER: ("fedpkg.apps.server_program",),
    ALGORITHM_RUNNER: ("fedpkg.analytics.node_program", "fedpkg.analytics.warm"),
}
# Distributions whose modules fedpkg provides where they are not installed.
SERVED = ("flwr", "flwr-datasets")
CATEGORIES = ("train", "evaluate", "query")  # of messages: a message app has an entry point for each
Value: TypeAlias = "bool | int | float | str"
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}  # of values, for messages

_MAX_BYTES = 64 << 10
_BIGGEST_MODULE = 1 << 20
_LONGEST_NAME = 100
_LONGEST_PROBLEM = 500
_FLWR = ("tool", "flwr")
_COMPONENTS, _CONFIG = (*_FLWR, "app", "components"), (*_FLWR, "app", "config")
_FEDERATIONS = (*_FLWR, "federations")
_NODES = ("options", "num-supernodes")


@dataclass(frozen=True)
class App:
    """A message app.

    Args:
        server, client: ``module:object`` of its ServerApp and its ClientApp.
        config: Its configuration, flattened: the key ``lr`` of the table ``train`` is ``train.lr``.
        lines: The lines of these keys in its file.
        nodes: The number of nodes of its default federation; None: it gives none.
        federations: The number of nodes of each federation.
    """

    name: str
    server: str
    client: str
    version: str = ""
    config: Mapping[str, Value] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)
    nodes: int | None = None
    federations: Mapping[str, int] = field(default_factory=dict)
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


def names_object(text: str) -> bool:
    """Whether a text is ``module:object``, in which both may have dots."""
    module, _, name = text.partition(":")
    return all(part.isidentifier() for part in (*module.split("."), *name.split(".")))


def commands_of(client: str) -> dict[str, str]:
    """The command of each entry point of a message app, whose ClientApp is ``client``."""
    return dict.fromkeys(CATEGORIES, f"python -m {RUNNER} {client}")


def spec_with_models(app: App) -> str:
    """The text of a fedn.yaml whose entry points call the app's ClientApp with model files.

    The values of the app's configuration are words of the commands, where arguments of a run.yaml override them.
    """
    # JSON in ASCII, without braces, which could be placeholders.
    values = [f"{key}={json.dumps(value)}".replace("{", "\\u007b") for key, value in app.config.items()]
    lines = [f"# The ClientApp of {app.name}, called with model files.".replace("\n", " "), "entry_points:"]
    for name, category in (("train", "train"), ("validate", "evaluate")):
        command = shlex.join(["python", "-m", MODEL_RUNNER, category, app.client, *values, "--"])
        lines.append(f"  {name}: {{command: {json.dumps(command)}}}")
    return "\n".join([*lines, f"python_env: {APP_FILE}", ""])


def module_called(runner: str | None, words: Sequence[str]) -> str | None:
    """The module of an app or an algorithm that ``python -m runner words…`` calls; None if that is another program."""
    place = {RUNNER: 0, ALGORITHM_RUNNER: 0, SERVER_RUNNER: 0, MODEL_RUNNER: 1}.get(runner or "", len(words))
    return words[place].partition(":")[0] if place < len(words) else None


def is_app(folder: Path) -> bool:
    """Whether a folder has a pyproject.toml that describes a message app, right or wrong."""
    try:
        text = read_bounded(folder / APP_FILE, _MAX_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return False
    try:
        return bool(_table(read_toml(text), _FLWR))
    except NotToml:
        return "[tool.flwr" in text


def read_app(path: Path, *, where: str | None = None) -> App:
    """Read the pyproject.toml at ``path``, called ``where`` (or its path) in messages, and look for what it names.

    Raises:
        SpecError: it is wrong, or a module or an object that it names does not exist; the message has the line.
    """
    where = str(path) if where is None else where
    try:
        data = read_bounded(path, _MAX_BYTES)
    except OSError as error:
        is_big = error.errno == errno.EFBIG
        problem = f"larger than {_MAX_BYTES >> 10} KiB" if is_big else f"cannot be read: {error.strerror}"
        raise SpecError(f"{where}: {problem}", path=where) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _error(where, line, "not UTF-8 text", hint="save the file as UTF-8") from None
    try:
        return _Reader(text, where, path.parent).app()
    except RecursionError:
        raise _error(where, None, "nested too deeply") from None


class _Reader:
    def __init__(self, text: str, where: str, folder: Path) -> None:
        self._text, self._where, self._folder = text, where, folder
        try:
            self._tree = read_toml(text)
        except NotToml as error:
            raise _error(where, error.line, error.problem) from None

    def app(self) -> App:
        project = self._get(("project",))
        name = project.get("name") if isinstance(project, dict) else None
        if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > _LONGEST_NAME:
            problem = f"'project.name' must be a text of 1 to {_LONGEST_NAME} visible characters"
            problem = "[project] has no 'name'" if name is None else problem
            raise self._refused(("project",), problem, hint='add to the file: [project] name = "my-app"')
        version, application = self._get(("project", "version")), _table(self._tree, (*_FLWR, "app"))
        config = dict(self._flattened())
        federations = self._federations()
        return App(
            name=name.strip(),
            server=self._component("serverapp", "app = ServerApp()"),
            client=self._component("clientapp", "app = ClientApp()"),
            version=version if isinstance(version, str) else "",
            config={key: value for key, (_, value) in config.items()},
            lines={key: line for key, (keys, _) in config.items() if (line := line_of(self._text, keys))},
            nodes=self._default_nodes(federations),
            federations=federations,
            include=_texts(application.get("fab-include")),
            exclude=_texts(application.get("fab-exclude")),
        )

    # ---- components

    def _component(self, key: str, example: str) -> str:
        keys = (*_COMPONENTS, key)
        hint = f'write: [tool.flwr.app.components] {key} = "package.{key[:-3]}_app:app"'
        components = self._get(_COMPONENTS)
        if not isinstance(components, dict):
            both = 'serverapp = "package.server_app:app", clientapp = "package.client_app:app"'
            hint = f"write: [tool.flwr.app.components] {both}"
            raise self._refused((*_FLWR, "app"), "it has no table [tool.flwr.app.components]", hint=hint)
        value = components.get(key)
        if value is None:
            known = nearest(key, components)
            raise self._refused(_COMPONENTS, f"[tool.flwr.app.components] has no '{key}'{known}", hint=hint)
        if not isinstance(value, str) or not names_object(value):
            raise self._refused(keys, f"'{key}' is {value!r}, which is not 'module:object'", hint=hint)
        module, _, name = value.partition(":")
        path = self._module(keys, module)
        first = name.partition(".")[0]
        names = _names_in(path)
        if names is not None and first not in names:
            shown = path.relative_to(self._folder).as_posix()
            known = nearest(first, names) or f" (it defines: {', '.join(sorted(names)[:8]) or 'nothing'})"
            problem = f"'{key}' is '{value}', but {shown} defines no '{first}'{known}"
            raise self._refused(keys, problem, hint=f"add to {shown}: {first} = {example.partition(' = ')[2]}")
        return value

    def _module(self, keys: tuple[str, ...], module: str) -> Path:
        """The file of a module of the app."""
        base = self._folder.joinpath(*module.split("."))
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return path
        known = {
            ".".join(path.relative_to(self._folder).with_suffix("").parts)
            for depth in ("*.py", "*/*.py", "*/*/*.py")
            for path in self._folder.glob(depth)
        }
        problem = f"'{keys[-1]}' names the module '{module}', which is not in the app{nearest(module, known)}"
        file = base.with_suffix(".py").relative_to(self._folder)
        raise self._refused(keys, problem, hint=f"create {file}, or correct the name")

    # ---- configuration

    def _flattened(self) -> Iterator[tuple[str, tuple[tuple[str, ...], Value]]]:
        """The flattened keys, each with its keys in the file and its value."""
        config = self._get(_CONFIG)
        if config is None:
            return
        if not isinstance(config, dict):
            raise self._refused(_CONFIG, "'tool.flwr.app.config' must be a table")
        found: dict[str, tuple[str, ...]] = {}
        for keys, value in leaves(config):
            path, name = (*_CONFIG, *keys), ".".join(keys)
            self._check(path, name, value)
            if name in found:
                raise self._refused(path, f"the configuration has '{name}' twice: once with quotes, once as a table")
            found[name] = path
            yield name, (path, value)
        for name, path in found.items():
            parts = name.split(".")
            above = next((one for end in range(1, len(parts)) if (one := ".".join(parts[:end])) in found), None)
            if above is not None:
                problem = f"the configuration contradicts itself: '{above}' is a value, and the table of '{name}'"
                raise self._refused(path, problem, hint="rename one of them")

    def _check(self, path: tuple[str, ...], name: str, value: object) -> None:
        kinds = "a number, true or false, a text, or a table of these"
        if not all(name.split(".")) or not name.isprintable():
            problem = f"the configuration has the key {name!r}, in which a part is empty or a character is invisible"
            raise self._refused(path, problem)
        if not isinstance(value, (bool, int, float, str)):
            what = "an empty table" if isinstance(value, dict) else f"a {type(value).__name__}"
            hint = f'use {kinds}; a list can be a text that the app splits: {name} = "1,2,3"'
            raise self._refused(path, f"'{name}' of the configuration is {what}, which apps cannot have", hint=hint)
        if isinstance(value, int) and not -(2**63) <= value < 2**64:
            raise self._refused(path, f"'{name}' of the configuration does not fit into 64 bits")
        if isinstance(value, float) and not math.isfinite(value):
            raise self._refused(path, f"'{name}' of the configuration is {value}, which is not a finite number")

    # ---- federations

    def _federations(self) -> dict[str, int]:
        found = {}
        table = self._get(_FEDERATIONS)
        for name, federation in table.items() if isinstance(table, dict) else ():
            if not isinstance(federation, dict):
                continue
            nodes: Any = federation
            for key in _NODES:
                nodes = nodes.get(key) if isinstance(nodes, dict) else None
            if nodes is None:
                continue
            if isinstance(nodes, bool) or not isinstance(nodes, int) or nodes < 1:
                path = (*_FEDERATIONS, name, *_NODES)
                raise self._refused(path, f"'num-supernodes' is {nodes!r}; it must be a whole number from 1")
            found[name] = nodes
        return found

    def _default_nodes(self, federations: Mapping[str, int]) -> int | None:
        default = self._get((*_FEDERATIONS, "default"))
        if not isinstance(default, str):
            return next(iter(federations.values())) if len(federations) == 1 else None
        table = self._get(_FEDERATIONS)
        if default not in table:
            known = nearest(default, federations)
            problem = f"the default federation '{default}' is not there{known}"
            hint = f"add [tool.flwr.federations.{default}] options.num-supernodes = 10"
            raise self._refused((*_FEDERATIONS, "default"), problem, hint=hint)
        return federations.get(default)

    def _get(self, keys: tuple[str, ...]) -> Any:
        return _table(self._tree, keys[:-1]).get(keys[-1])

    def _refused(self, keys: tuple[str, ...], problem: str, *, hint: str | None = None) -> SpecError:
        return _error(self._where, line_of(self._text, keys), problem, hint=hint)


def convert(key: str, text: str, value: Value) -> Value:
    """The text of a command line as a value of the same type as ``value``.

    Raises:
        ValueError: it is none; the message says what is expected.
    """
    text = text.strip()
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    if isinstance(value, str):
        return text[1:-1] if quoted else text
    if isinstance(value, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError(f"'{key}' must be {KINDS[bool]}, not '{text}'")
        return text.lower() == "true"
    try:
        number = int(text) if isinstance(value, int) else float(text)
    except ValueError:
        raise ValueError(f"'{key}' must be {KINDS[type(value)]}, as in the app's {APP_FILE}, not '{text}'") from None
    if not math.isfinite(number) or (isinstance(number, int) and not -(2**63) <= number < 2**64):
        raise ValueError(f"'{key}' is {text}, which is out of range")
    return number


def _table(tree: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    """The table at a path; empty if there is none."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree if isinstance(tree, dict) else {}


def flat(table: Mapping[str, Any]) -> dict[str, Any]:
    """A table whose keys of inner tables are joined with dots; the last of equal keys counts."""
    return {".".join(keys): value for keys, value in leaves(table)}


def _texts(value: object) -> tuple[str, ...]:
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()


def _names_in(path: Path) -> set[str] | None:
    """The names that a module defines or imports at its top; None if that cannot be known."""
    try:
        if path.stat().st_size > _BIGGEST_MODULE:
            return None
        tree = parsed(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # the task itself will report the error
    names: set[str] = set()
    pending: list[ast.AST] = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            if any(alias.name == "*" for alias in node.names):
                return None
            names.update(alias.asname or alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("globals", "exec", "setattr"):
            return None
        pending += ast.iter_child_nodes(node)
    return None if "__getattr__" in names else names


def _error(where: str, line: int | None, problem: str, *, hint: str | None = None) -> SpecError:
    place = where if line is None else f"{where}, line {line}"
    problem = problem if len(problem) <= _LONGEST_PROBLEM else f"{problem[:_LONGEST_PROBLEM]}…"
    return SpecError(f"{place}: {shown(problem)}", hint=hint, path=where, line=line)
