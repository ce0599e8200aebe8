"""Reads and checks a run.yaml with dotted overrides, and remembers where each value came from."""

from __future__ import annotations

import glob
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from msgspec import inspect

from fedpkg.config import (
    DATASET_SUFFIXES,
    NAMED_DATASETS,
    PATHS_OF_A_SOURCE,
    ClientsConfig,
    RunConfig,
    dump_config,
)
from fedpkg.config_rules import TRUSTED, check_linked_files, check_reserved, check_values
from fedpkg.config_shape import COMMAND_LINE, Places, check_shape, options_of, type_of
from fedpkg.errors import ConfigError
from fedpkg.files import read_bounded
from fedpkg.types import leaves
from fedpkg.yaml_places import allow_deep_calls, read_yaml

if TYPE_CHECKING:
    from fedpkg.types import Json

MAX_FILE_BYTES = 4 << 20  # of a run.yaml
EXPERIMENT = "experiment.yaml"  # the root of an experiment, which is composed with other files

PATHS = (
    *("package", "seed_model", "clients.folders", "clients.data.dataset", "trust.signature", "trust.allow"),
    *(
        "isolate.read",
        "strategy.file",
        "strategy.folder",
        "strategy.server_functions",
        "strategy.server_model",
        "strategy.labels",
        "sampler.file",
        "sampler.availability.trace",
        "clients.data.partition.file",
        "evaluation.server.data",
        "clients.data.partition.matrix",
        "clients.data.dataset.path",
        "clients.data.dataset.file",
        "clients.data.dataset.database",
        "clients.entities",
        "clients.node_config",
        "topology.file",
    ),
)
# The same in a combiner of `topology`, which has the keys of `strategy`, `sampler` and `clients.data`.
_OF_A_COMBINER = tuple(
    key.removeprefix("clients.") for key in PATHS if key.startswith(("strategy.", "sampler.", "clients.data."))
)


Resolve: TypeAlias = Callable[[RunConfig, Places], RunConfig]
Assignment: TypeAlias = "tuple[tuple[str, ...], Json]"  # a key, and the value that it is set to
Elsewhere: TypeAlias = Callable[[str], "str | None"]


@dataclass(frozen=True)
class LoadedConfig:
    """A configuration and, for every leaf key, its origin: ``run.yaml:12``, ``command line`` or ``default``."""

    config: RunConfig
    origins: Mapping[str, str]


def load_config(path: Path, overrides: Sequence[str] = (), *, resolve: Resolve | None = None) -> LoadedConfig:
    """Read a run.yaml, merge ``key.sub=value`` overrides into it, resolve ``${…}`` and check every value.

    An override's value is YAML (``3``, ``null``, ``[1, 2]``) and replaces the file's; only a mapping for a section
    of fixed keys (``executor={workers: 2}``) is merged key by key. So ``strategy={name: krum}`` removes all parameters
    of the file's strategy, while ``strategy.attackers=2`` sets one.
    Relative paths start at the file's folder or, in overrides, at the current directory.

    Args:
        resolve: Checks sections whose keys depend on a name in them, and fills in their defaults.

    Raises:
        ConfigError: If a value is wrong; the message has the file and line (or "on the command line"), the key, the
            allowed values and the value found.
    """
    source = str(path)
    if path.name == EXPERIMENT or (path / EXPERIMENT).is_file():
        raise of_experiment(path)
    try:
        text = read_bounded(path, MAX_FILE_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        hint = "give the path of a run.yaml, or of a message app, whose folder has a pyproject.toml"
        if Path(path).is_dir():
            hint += f"; a compute package is run by --package {shlex.quote(source)}"
        raise ConfigError(f"{source}: cannot be read: {reason}", hint=hint) from error
    tree, lines = read_yaml(text, source=source, verbatim=is_environment)
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{source}: expected 'key: value' lines, found {'nothing' if tree is None else 'something else'}",
            hint="a run.yaml needs at least the keys package, rounds and clients",
        )
    if "defaults" in tree:
        raise of_experiment(path)
    return checked(tree, _assignments(overrides), Places(source, lines), resolve)


def of_experiment(path: Path) -> ConfigError:
    """The error for an experiment where a run.yaml or a package is expected."""
    what = path.parent if path.name == EXPERIMENT else path
    return ConfigError(
        f"{path}: this is an experiment, which is composed of several files",
        hint=f"fedpkg experiment run {shlex.quote(str(what))}; in Python: fedpkg.run(fedpkg.compose({str(what)!r}))",
    )


def config_of(tree: Mapping[str, Json], overrides: Sequence[str] = (), *, resolve: Resolve | None = None) -> RunConfig:
    """The configuration that command-line options give without a file; otherwise the same as ``load_config``.

    But a mapping in an override never replaces a section, because some arguments and links in ``tree`` were detected.

    Raises:
        ConfigError: As for a file, with "on the command line".
    """
    places = Places("the options")
    places.override((), dict(tree))
    return checked(dict(tree), _assignments(overrides), places, resolve, replaces=False).config


def checked(
    tree: dict[str, Any],
    assignments: Sequence[Assignment],
    places: Places,
    resolve: Resolve | None,
    *,
    replaces: bool = True,
    names: Mapping[str, Json] | None = None,
    elsewhere: Elsewhere | None = None,
) -> LoadedConfig:
    """Merge assignments into a tree of keys, resolve ``${…}`` and check every value.

    Args:
        places: Where the keys of ``tree`` were set; the assignments are added.
        replaces: Whether a mapping replaces a section of free keys, such as ``strategy``.
        names: Further names that ``${…}`` can refer to.
        elsewhere: Finds a file that is not there relative to the file that names it.

    Raises:
        ConfigError: See `load_config`.
    """
    if "topology" in tree:  # its tree may be deep
        allow_deep_calls()
    tree = _merge(tree, assignments, places, replaces=replaces, names=names or {})
    _environment_as_text(tree)
    check_shape(tree, RunConfig, places)
    absolute_paths(tree, places, elsewhere)
    config = msgspec.convert(tree, RunConfig)
    check_values(config, places)
    check_linked_files(config, places)
    check_reserved(config, places)
    if resolve is not None:
        config = resolve(config, places)
    origins = {
        ".".join(leaf): places.origin(leaf) if _given(tree, leaf) else "default"
        for leaf, _value in leaves(dump_config(config))
    }
    return LoadedConfig(config, origins)


def config_from_json(data: Json) -> RunConfig:
    """Inverse of ``dump_config``, for a stored configuration. Raises ConfigError."""
    places = Places("stored configuration")
    check_shape(data, RunConfig, places)
    config = msgspec.convert(data, RunConfig)
    check_values(config, places)
    return config


def render(loaded: LoadedConfig) -> list[tuple[str, Json, str]]:
    """Key, value and origin of every leaf, in the order of the schema."""
    found = ((".".join(path), value) for path, value in leaves(dump_config(loaded.config)))
    return [(key, value, loaded.origins[key]) for key, value in found]


# ---- merging


def _merge(
    tree: dict[str, Json],
    assignments: Sequence[Assignment],
    places: Places,
    *,
    replaces: bool,
    names: Mapping[str, Json],
) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        merged: Any = OmegaConf.create(tree)
        for keys, value in assignments:
            if replaces and isinstance(value, dict) and _is_free(keys):
                _remove(merged, keys)
                places.override(keys, None)
            places.override(keys, value)
            nested = value
            for key in reversed(keys):
                nested = {key: nested}
            try:
                merged = OmegaConf.merge(merged, nested)
            except TypeError as error:  # one is a list, the other a mapping
                raise ConfigError(
                    f"on the command line: '{'.'.join(keys)}' is of another kind than the value that it replaces",
                    hint="replace a list by a whole list; set a section key by key",
                    key=".".join(keys),
                ) from error
        given = OmegaConf.to_container(merged)
        # ${seed} also works if the file has no seed
        complete = OmegaConf.create({**names, **_over(_defaults(), given)})
        resolved = OmegaConf.to_container(complete, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise _unresolved(error, places) from error
    result: dict[str, Any] = _only(resolved, given)
    return result


def _unresolved(error: Exception, places: Places) -> ConfigError:
    key = str(getattr(error, "full_key", None) or "")
    place = places.where(tuple(re.split(r"[.\[\]]+", key)))
    return ConfigError(
        f"{place}: '{key}': {str(error).splitlines()[0]}",
        hint=r"${key.sub} is replaced by that key's value, ${oc.env:NAME} by that variable's; \${ is a literal ${",
        key=key,
    )


def _is_free(keys: Sequence[str]) -> bool:
    """Whether a path leads to a section whose keys are not fixed, such as ``strategy``, or into one."""
    return any(isinstance(_kind_at(keys[:end]), inspect.DictType) for end in range(1, len(keys) + 1))


def is_section(keys: Sequence[str]) -> bool:
    """Whether a path leads to a section of a run.yaml, also one in a section of free keys (``arguments.train``)."""
    return isinstance(_kind_at(keys), (inspect.StructType, inspect.DictType))


def is_known(keys: Sequence[str]) -> bool:
    """Whether the schema has this key. In sections of free keys it knows none."""
    return _kind_at(keys) is not None and not _is_free(keys[:-1])


def is_section_of_source(value: Mapping[str, Json]) -> bool:
    """Whether a mapping in ``data.sources`` describes one dataset; else it has one for each split."""
    return not {"name", *PATHS_OF_A_SOURCE}.isdisjoint(value)


def keys_of(section: Sequence[str]) -> list[str]:
    """The keys that the schema gives a section; none for a section of free keys."""
    kind = _kind_at(section)
    return [field.encode_name for field in kind.fields] if isinstance(kind, inspect.StructType) else []


def _kind_at(keys: Sequence[str]) -> inspect.Type | None:
    """The type of a key in a run.yaml; of a union its section, or else its first type."""
    kind = type_of(RunConfig)
    for key in keys:
        if isinstance(kind, inspect.DictType):
            found: inspect.Type | None = kind.value_type
        elif isinstance(kind, inspect.StructType):
            found = next((field.type for field in kind.fields if field.encode_name == key), None)
        else:
            return None
        if found is None:
            return None
        sections = [one for one in options_of(found) if isinstance(one, (inspect.StructType, inspect.DictType))]
        kind = [*sections, options_of(found)[0]][0]
    return kind


def _remove(tree: Any, keys: Sequence[str]) -> None:
    for key in keys[:-1]:
        tree = tree.get(key) if hasattr(tree, "get") else None
    if hasattr(tree, "pop") and hasattr(tree, "get"):
        tree.pop(keys[-1], None)


def _defaults() -> dict[str, Json]:
    data = dump_config(RunConfig(package="", rounds=1, clients=ClientsConfig()))
    return {key: value for key, value in data.items() if key not in ("package", "rounds")}


def _over(below: Any, above: Any) -> Any:
    if isinstance(below, dict) and isinstance(above, dict):
        return below | {key: _over(below.get(key), value) for key, value in above.items()}
    return above


def _only(resolved: Any, given: Any) -> Any:
    """``resolved`` without the defaults that were added to it."""
    if isinstance(resolved, dict) and isinstance(given, dict):
        return {key: _only(resolved[key], value) for key, value in given.items()}
    return resolved


def _assignments(overrides: Sequence[str]) -> list[Assignment]:
    return [parse_override(override) for override in overrides]


def parse_override(override: str) -> tuple[tuple[str, ...], Json]:
    """The keys and the value of a ``key.sub=value``. Raises ConfigError if it has another form."""
    key, equals, text = override.partition("=")
    keys = tuple(part.strip() for part in key.split("."))
    if not equals or not all(keys):
        hint = "for example rounds=3"
        if not equals and os.path.exists(override):
            hint = (
                "put a pattern of paths in quotes, as in 'data/*.csv': without them, the shell replaces it by the paths"
            )
        raise ConfigError(f"on the command line: '{override}' is not key=value", hint=hint)
    # Characters with a meaning in YAML that are more likely literal here: *.csv, #fff, @home.
    if text.startswith(tuple("*&!@`%#|>")):
        return keys, text
    value, _lines = read_yaml(
        text, source=f"on the command line, '{key}'", verbatim=lambda path: is_environment(keys + path)
    )
    return keys, value


def is_environment(path: tuple[str, ...]) -> bool:
    """Whether a path leads to a variable of the tasks, whose value is text as it is written."""
    return (len(path) == 2 and path[0] == "environment") or (len(path) == 4 and path[:2] == ("clients", "environment"))


def _environment_as_text(tree: dict[str, Any]) -> None:
    """Convert numbers that came into ``environment`` through ``${…}``; literal ones are text already."""
    environment = tree.get("environment")
    if isinstance(environment, dict):
        for name, value in environment.items():
            if isinstance(value, (bool, int, float)):
                environment[name] = str(value).lower() if isinstance(value, bool) else str(value)


def absolute_paths(tree: dict[str, Any], places: Places, elsewhere: Elsewhere | None = None) -> None:
    """Make the paths in a tree of keys absolute: they are relative to the file that has them."""

    def absolute(path: tuple[str, ...], value: str) -> str:
        is_typed = places.line(path) == COMMAND_LINE
        base = str(Path.cwd() if is_typed else Path(places.source_of(path)).parent.absolute())
        if elsewhere is not None and not is_typed and not os.path.exists(os.path.join(base, os.path.expanduser(value))):
            value = elsewhere(value) or value
        if (path[-1] == "folders" or "databases" in path) and any(sign in value for sign in "*?["):
            base = glob.escape(base)  # only the user's own text is a pattern
        only_folders = "/" if path[-1] == "folders" and value.endswith("/") else ""  # it matches folders only
        return os.path.abspath(os.path.join(base, os.path.expanduser(value))) + only_folders

    def below_sources(path: tuple[str, ...], value: Any) -> Any:
        """The value of a key of ``data.sources`` with absolute paths."""
        if isinstance(value, dict):
            is_section = path[-1] != "sources" and is_section_of_source(value)
            return {
                key: one if is_section and key not in PATHS_OF_A_SOURCE else below_sources((*path, key), one)
                for key, one in value.items()
            }
        if not isinstance(value, str) or value in NAMED_DATASETS or not value or "://" in value:
            return value
        found = absolute(path, value)
        is_path = path[-1] in PATHS_OF_A_SOURCE or value.endswith(DATASET_SUFFIXES) or os.path.exists(found)
        return found if is_path or ("/" in value and ":" not in value) else value

    data = tree.get("data")
    if isinstance(data, dict) and "sources" in data:
        data["sources"] = below_sources(("data", "sources"), data["sources"])
    clients = tree.get("clients")
    if isinstance(clients, dict) and isinstance(databases := clients.get("databases"), dict):
        clients["databases"] = {
            label: absolute(("clients", "databases", label), one) if isinstance(one, str) and "://" not in one else one
            for label, one in databases.items()
        }
    trackers = tree.get("tracking")
    number = len(trackers) if isinstance(trackers, list) else 0
    of_trackers = [f"tracking.{place}.{name}" for place in range(number) for name in ("file", "folder")]
    for key in (*PATHS, *of_trackers, *_paths_of_combiners(tree.get("topology"))):
        *sections, last = path = tuple(key.split("."))
        section: Any = tree
        for name in sections:
            if isinstance(section, list):
                section = section[int(name)] if name.isdigit() else None
            else:
                section = section.get(name) if isinstance(section, dict) else None
        value = section.get(last) if isinstance(section, dict) else None
        if isinstance(value, list):
            section[last] = [
                absolute(path, one) if isinstance(one, str) and one and not TRUSTED.match(one) else one for one in value
            ]
        elif isinstance(value, str) and value and not _is_a_name(last, value):
            section[last] = absolute(path, value)


def _paths_of_combiners(topology: Any) -> Iterator[str]:
    """Keys that may have a path. A combiner's ``data`` that is text becomes a section."""
    waiting = [("topology", topology)]
    while waiting:
        at, node = waiting.pop()
        children = node.get("children") if isinstance(node, dict) else None
        for number, child in enumerate(children if isinstance(children, list) else ()):
            if isinstance(child, dict):
                below = f"{at}.children.{number}"
                if isinstance(child.get("data"), str):
                    child["data"] = {"dataset": child["data"]}
                yield from (f"{below}.{key}" for key in _OF_A_COMBINER if key.partition(".")[0] in child)
                waiting.append((below, child))


def _is_a_name(key: str, value: str) -> bool:
    """Whether the value of a key that may have a path is something else: the name of a dataset, an address."""
    return (key == "dataset" and not value.endswith(DATASET_SUFFIXES)) or (key == "database" and "://" in value)


def _given(tree: Any, path: tuple[str, ...]) -> bool:
    for key in path:
        if isinstance(tree, str):  # the text that a section was made from: the path of a dataset
            return key in ("name", "path")
        if not isinstance(tree, dict) or key not in tree:
            return False
        tree = tree[key]
    return True
