"""A run of a message app: its configuration comes from the app's pyproject.toml and the command line.

On the command line, a bare ``key=value`` sets a key of the app's own configuration, which must have it; its value gets
the type of the one in the file. ``run.key=value`` sets a key of the run.yaml.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpkg.compute_package.app import APP_FILE, App, Value, convert, flat
from fedpkg.compute_package.imports import python_files
from fedpkg.compute_package.spec import spec_path
from fedpkg.compute_package.unpack import UnpackedPackage
from fedpkg.config import NAMED_DATASETS
from fedpkg.config_reading import LoadedConfig, checked, is_known, parse_override
from fedpkg.config_shape import Places
from fedpkg.errors import ConfigError, nearest
from fedpkg.session.configuration import SERVER_APP, resolved
from fedpkg.toml_places import NotToml, read_toml

DEFAULT_NODES = 10
OF_THE_RUN = "run."  # before a key of the run.yaml
_LISTS = (("clients", "folders"), ("clients", "entities"))  # keys that say how many clients there are


@dataclass(frozen=True)
class AppOptions:
    """Options of ``fedpkg run`` for a message app.

    Args:
        nodes: The number of nodes; None: as in the app's file.
        rounds: The value of the app's own key ``num-server-rounds``.
        data: A pattern of paths; each match is the data of one node.
        federation: The federation of the app's file that gives the number of nodes.
        run_config: Texts like ``lr=0.1 name="a b"``, or paths of .toml files, with values for the app's configuration.
    """

    nodes: int | None = None
    rounds: int | None = None
    data: str | None = None
    federation: str | None = None
    run_config: Sequence[str] = ()


def is_app_folder(path: Path) -> bool:
    """Whether a path is the folder of a message app. A folder with a fedn.yaml is another package."""
    return path.is_dir() and spec_path(path).name == APP_FILE


def of_the_run(words: Iterable[str]) -> list[str]:
    """The words that set keys of the run.yaml, without their prefix."""
    return [word.removeprefix(OF_THE_RUN) for word in words if word.startswith(OF_THE_RUN)]


def loaded_app(
    package: Path,
    app: App,
    unpacked: UnpackedPackage,
    words: Sequence[str],
    options: AppOptions,
    *,
    name: str,
) -> LoadedConfig:
    """The configuration of a run of this app, with the origin of each value.

    Args:
        words: ``key=value`` and ``run.key=value``, as on the command line.

    Raises:
        ConfigError: a key is unknown, a value has another type, or an option does not fit the app.
    """
    if options.rounds is not None:
        words = (*words, f"num-server-rounds={options.rounds}")
    nodes, data = options.nodes, options.data
    given = dict(_given(app, words, options.run_config))
    assignments = [parse_override(word) for word in of_the_run(words)]
    clients: dict[str, Any] = {} if data is None else {"folders": data}
    if nodes is not None or not (clients or any(keys in _LISTS for keys, _ in assignments)):
        clients["count"] = _nodes(app, options)
    folder = package if package.is_dir() else unpacked.folder
    tree: dict[str, Any] = {
        "package": str(package.absolute()),
        "name": name,
        "rounds": None,  # the session ends when the ServerApp returns
        "clients": clients,
        "strategy": {"name": SERVER_APP, "folder": str(folder.absolute()), "app": app.server},
        "run_config": {key: _literal(value) for key, value in {**app.config, **given}.items()},
        "python_env": "current",  # nothing is installed unless the user asks for it
    }
    if named := _of_scikit(unpacked.folder):
        tree["data"] = {"sources": {name: name for name in named}}
    places = Places(str(package / APP_FILE), {("run_config", key): line for key, line in app.lines.items()})
    typed = [("run_config", key) for key in given]
    typed += [("clients", key) for key, value in (("count", nodes), ("folders", data)) if value is not None]
    for path in typed:
        places.override(path, None)
    return checked(tree, assignments, places, resolved, replaces=False)


def _of_scikit(folder: Path) -> list[str]:
    """The datasets of scikit-learn that the app's code names.

    One copy for all tasks is made of each, because importing scikit-learn in a task takes longer than most training.
    """
    text = b"\n".join(path.read_bytes() for path in python_files(folder)).decode(errors="replace")
    return [name for name in NAMED_DATASETS if f'"{name}"' in text or f"'{name}'" in text]


def _given(app: App, words: Sequence[str], run_config: Sequence[str]) -> Iterator[tuple[str, Value]]:
    """The values that the command line sets in the app's configuration."""
    for text in run_config:
        yield from _of_file(app, Path(text)) if text.endswith(".toml") else _of_words(app, _split(text))
    yield from _of_words(app, words)


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"--run-config {text}: {str(error).lower()}", hint="""-c 'lr=0.1 name="a b"'""") from None


def _of_words(app: App, words: Iterable[str]) -> Iterator[tuple[str, Value]]:
    for word in words:
        key, equals, text = word.partition("=")
        if key.startswith(OF_THE_RUN) and key not in app.config:
            continue
        if not equals:
            hint = f"for example {next(iter(app.config), 'num-server-rounds')}=3"
            raise ConfigError(f"on the command line: '{word}' is not key=value", hint=hint)
        yield key, _value(app, key, text, "on the command line")


def _of_file(app: App, path: Path) -> Iterator[tuple[str, Value]]:
    try:
        table = read_toml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read: {reason}") from error
    except NotToml as error:
        raise ConfigError(f"{path}{f', line {error.line}' if error.line else ''}: {error.problem}") from None
    for key, value in flat(table).items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        yield key, _value(app, key, f'"{text}"' if isinstance(value, str) else text, str(path))


def _value(app: App, key: str, text: str, where: str) -> Value:
    if key not in app.config:
        keys = ", ".join(app.config) or "nothing"
        hint = f"its configuration ([tool.flwr.app.config] in its {APP_FILE}) has: {keys}"
        if is_known(key.split(".")):
            hint = f"for the key of the run.yaml, write {OF_THE_RUN}{key}={text}; {hint}"
        near = nearest(key, app.config)
        raise ConfigError(f"{where}: the app {app.name} has no key '{key}'{near}", hint=hint, key=key)
    try:
        return convert(key, text, app.config[key])
    except ValueError as error:
        raise ConfigError(f"{where}: {error}", key=key) from None


def _nodes(app: App, options: AppOptions) -> int:
    federation = options.federation
    if federation is not None and federation not in app.federations:
        known = nearest(federation, app.federations)
        there = ", ".join(app.federations) or "none with options.num-supernodes"
        hint = f"it has: {there}; --nodes N sets the number of nodes"
        raise ConfigError(f"the app {app.name} has no federation '{federation}'{known}", hint=hint)
    found = app.nodes if federation is None else app.federations[federation]
    return options.nodes or found or DEFAULT_NODES


def _literal(value: Value) -> Value:
    r"""A value that does not refer to another key: ``\${`` stands for ``${``."""
    return value.replace("${", r"\${") if isinstance(value, str) else value


def explained(app: App) -> list[Mapping[str, Any]]:
    """The keys of an app's configuration, each with its type, value and line."""
    kinds = {bool: "true or false", int: "whole number", float: "number", str: "text"}
    return [
        {"key": key, "value": kinds[type(value)], "default": value, "line": app.lines.get(key)}
        for key, value in app.config.items()
    ]
