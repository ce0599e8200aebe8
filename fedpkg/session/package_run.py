"""A run without a run.yaml: how a package wants its data is read off its files, and said as a configuration.

Nothing of the package is run. What is found only decides where a client's data path is put; ``FEDN_DATA_PATH`` has it
always.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedpkg.compute_package.spec import PackageSpec
from fedpkg.compute_package.trust import gate
from fedpkg.compute_package.unpack import UnpackedPackage, open_package
from fedpkg.config import ClientsConfig, RunConfig
from fedpkg.config_reading import config_of
from fedpkg.fedn.names import CLIENT_SETTINGS_FILE, CLIENT_SETTINGS_PATH, DATA_PATH
from fedpkg.session.configuration import resolved

DEFAULT_ROUNDS = 5  # as FEDn's sessions
DEFAULT_CLIENTS = 2  # of a package that is given no data
CLIENT_ENTRY_POINTS = ("train", "validate", "predict")
SETTINGS_FILES = ("client.yaml", CLIENT_SETTINGS_FILE, "settings.yaml")
_OPTIONS_VARIABLE = re.compile(r"\$\{?ENTRYPOINT_OPTS\b")
_PLAIN_PATH = re.compile(r"[\w@%+,./:=-]+", re.ASCII)  # what bash takes as it stands
_BIGGEST_SOURCE = 1 << 20
_ALL_SOURCES = 4 << 20  # 10 s at the worst: a stranger's package may have gigabytes of them


@dataclass(frozen=True)
class DataWays:
    """Where a package looks for a client's data: keys of a configuration, and the same in words."""

    environment: Mapping[str, str] = field(default_factory=dict)
    arguments: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    words: Sequence[str] = ()


def run_of_package(
    package: Path,
    overrides: Sequence[str],
    *,
    cache: Path,
    clients: int | None = None,
    rounds: int | None = None,
    data: str | None = None,
    seed_model: Path | None = None,
) -> tuple[RunConfig, Sequence[str]]:
    """The configuration of a run of this package, and how its clients get their data, in words.

    Args:
        overrides: ``key.sub=value``, as on the command line.

    Raises:
        ConfigError: an override is wrong.
        PackageError: the package cannot be used, or is not allowed; then it is not even looked at.
        DataError: ``data``, a pattern, does not match what could be clients.
    """
    first = [word for word in overrides if word.startswith(("trust", "limits"))]  # before the package is read
    asked = config_of({"package": str(package), "rounds": 1, "clients": {"count": 1}}, first)
    admit = gate(package, asked.trust.allow, signature=asked.trust.signature)
    unpacked = open_package(package, cache, asked.limits, admit=admit)
    tree: dict[str, Any] = {
        "package": str(package),
        "name": session_name(package),
        "rounds": DEFAULT_ROUNDS if rounds is None else rounds,
        "clients": {"count": clients or DEFAULT_CLIENTS},
    }
    if seed_model is not None:
        tree["seed_model"] = str(seed_model)
    ways = DataWays()
    if data is not None:
        ways = _ways_of_clients(unpacked, data, clients, cache=cache)
        tree["clients"] = {
            "folders": data,
            "links": dict(ways.links),
            **({} if clients is None else {"count": clients}),
        }
        tree["environment"] = dict(ways.environment)
        tree["arguments"] = {name: dict(arguments) for name, arguments in ways.arguments.items()}
    return config_of(tree, overrides, resolve=resolved), ways.words


def _ways_of_clients(package: UnpackedPackage, pattern: str, count: int | None, *, cache: Path) -> DataWays:
    from fedpkg.data.clients import prepare_clients  # here: it imports NumPy

    found = prepare_clients(ClientsConfig(count=count, folders=pattern), cache=cache, seed=0)
    return data_ways(package.folder, package.spec, [client.path for client in found if client.path is not None])


def call_ways(package: Path, data_path: Path, *, cache: Path, allow: Sequence[str] | None = None) -> DataWays:
    """How a package reads the data of one client, for a call by hand.

    Raises:
        PackageError: the package cannot be used, or is not allowed.
    """
    unpacked = open_package(package, cache, admit=gate(package, allow))
    return data_ways(unpacked.folder, unpacked.spec, [data_path])


def session_name(package: Path) -> str:
    """A package's name, or where that says nothing (FEDn's are all called client) the name of the folder around it."""
    name = package.resolve().name
    for suffix in (".gz", ".bz2", ".xz", ".tgz", ".tar"):
        name = name.removesuffix(suffix)
    if name in ("client", "package", ""):
        name = package.resolve().parent.name
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:60] or "session"


def data_ways(folder: Path, spec: PackageSpec, paths: Sequence[Path]) -> DataWays:
    """How the package in ``folder`` reads the data of clients whose data is at ``paths``."""
    sources = _Sources(folder)
    environment: dict[str, str] = {}
    arguments: dict[str, dict[str, str]] = {}
    links: dict[str, str] = {}
    words = []
    by_variable = sources.mention(DATA_PATH)
    if any(_OPTIONS_VARIABLE.search(entry.command) for entry in spec.entry_points.values()):
        value = "{data_path}"
        if not all(_PLAIN_PATH.fullmatch(str(path)) for path in paths):  # the shell would split or expand it
            suffixes = {path.suffix for path in paths}
            value = f".fedpkg-data{suffixes.pop() if len(suffixes) == 1 else ''}"
            links[value] = "."
        environment["ENTRYPOINT_OPTS"] = f"--data_path={value}"
        words.append(f"ENTRYPOINT_OPTS=--data_path={value}")
    elif not by_variable:
        for name in CLIENT_ENTRY_POINTS:
            if name in spec.entry_points and (flag := sources.data_flag(spec.entry_points[name].command, name)):
                arguments[name] = {flag: "{data_path}"}
                words.append(f"{name} --{flag}={{data_path}}")
    for name in SETTINGS_FILES:
        if sources.mention(name) and (within := _in_all(paths, name)):
            links[name] = within
            words.append(f"its own {name} beside fedn.yaml")
    if sources.mention(CLIENT_SETTINGS_PATH) and (inner := _in_all(paths, CLIENT_SETTINGS_FILE)):
        environment[CLIENT_SETTINGS_PATH] = "{data_path}" if inner == "." else f"{{data_path}}/{inner}"
        words.append(CLIENT_SETTINGS_PATH)
    if by_variable:
        words.insert(0, DATA_PATH)
    elif not words and (place := sources.place_of(paths)) is not None:
        links[place] = "."
        words.append(f"as {place} beside fedn.yaml")
    return DataWays(environment, arguments, links, words)


def _in_all(paths: Sequence[Path], name: str) -> str | None:
    """Where every client's data has a file of that name: in it, or it is that file."""
    if all((path / name).is_file() for path in paths):
        return name
    return "." if all(path.name == name and path.is_file() for path in paths) else None


class _Sources:
    """What the programs of a package say, as far as it can be read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.texts: dict[Path, str] = {}
        left_bytes = _ALL_SOURCES
        for path in sorted(folder.rglob("*")):
            if (
                path.suffix in (".py", ".sh", ".R", ".r", "")
                and path.is_file()
                and path.stat().st_size < min(_BIGGEST_SOURCE, left_bytes)
            ):
                left_bytes -= path.stat().st_size
                self.texts[path] = path.read_text(errors="replace")

    def mention(self, word: str) -> bool:
        pattern = re.compile(rf"(?<![\w-]){re.escape(word)}(?!\w)")
        return any(pattern.search(text) for text in self.texts.values())

    def data_flag(self, command: str, entry_point: str) -> str | None:
        """The option by which the script of a command takes the path of the data, if it has one."""
        try:
            words = shlex.split(command)
        except ValueError:
            return None
        for number, word in enumerate(words):
            module = words[number - 1] == "-m" if number else False
            path = self.folder / (f"{word.replace('.', '/')}.py" if module else word)
            if path not in self.texts:
                continue
            if flag := re.search(r"""["']--(data[_-]path)["']""", self.texts[path]):
                return flag[1]
            called = {entry_point, *words[number + 1 :]}  # python entrypoint.py train: fire calls the function train
            for node in ast.walk(_parsed(self.texts[path])):
                if not isinstance(node, ast.FunctionDef) or node.name not in called:
                    continue
                if "data_path" in [argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)]:
                    return "data_path"
        return None

    def place_of(self, paths: Sequence[Path]) -> str | None:
        """The name beside fedn.yaml under which programs open the data: its own name, or `data` for folders."""
        strings = set(self._strings())
        names = {path.name for path in paths}
        if len(names) == 1 and (name := names.pop()) in {string.removeprefix("./") for string in strings}:
            return name
        opens = any(string.removeprefix("./").split("/")[0] == "data" for string in strings)
        return "data" if opens and all(path.is_dir() for path in paths) else None

    def _strings(self) -> list[str]:
        """Strings in Python, and words of the other programs."""
        found = []
        for path, text in self.texts.items():
            nodes = list(ast.walk(_parsed(text)))
            found += [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
            if path.suffix != ".py":
                found += re.split(r"[\s\"'=;(){}]+", text)
        return found


def _parsed(text: str) -> ast.AST:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the task itself will say what is wrong with it
        return ast.Module([], [])
