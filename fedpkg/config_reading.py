"""Reads and checks a run.yaml with dotted overrides, and remembers where each value came from."""

from __future__ import annotations

import glob
import itertools
import math
import os
import posixpath
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from msgspec import inspect

from fedpkg.config import DATASET_SUFFIXES, ClientsConfig, KeepRule, RunConfig, StopConfig, dump_config
from fedpkg.config_shape import COMMAND_LINE, Places, check_shape, options_of, type_of, wrong_value
from fedpkg.devices import ORDER, THREAD_VARIABLES, VISIBLE
from fedpkg.errors import ConfigError
from fedpkg.fedn.names import SPEC_FILES
from fedpkg.files import read_bounded
from fedpkg.waist.place import IN_A_VERSION
from fedpkg.yaml_places import read_yaml

if TYPE_CHECKING:
    from fedpkg.types import Json

MAX_FILE_BYTES = 4 << 20  # of a run.yaml
EXPERIMENT = "experiment.yaml"  # the root of an experiment, which is composed with other files

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
        hint = "give the path of a run.yaml" + (f"; a package is run by --package {source}" * Path(path).is_dir())
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
    tree = _merge(tree, assignments, places, replaces=replaces, names=names or {})
    _environment_as_text(tree)
    check_shape(tree, RunConfig, places)
    _absolute_paths(tree, places, elsewhere)
    config = msgspec.convert(tree, RunConfig)
    _check_values(config, places)
    _check_linked_files(config, places)
    _check_reserved(config, places)
    if resolve is not None:
        config = resolve(config, places)
    origins = {
        ".".join(leaf): places.origin(leaf) if _given(tree, leaf) else "default"
        for leaf, _value in _leaves(dump_config(config))
    }
    return LoadedConfig(config, origins)


def config_from_json(data: Json) -> RunConfig:
    """Inverse of ``dump_config``, for a stored configuration. Raises ConfigError."""
    places = Places("stored configuration")
    check_shape(data, RunConfig, places)
    config = msgspec.convert(data, RunConfig)
    _check_values(config, places)
    return config


def render(loaded: LoadedConfig) -> list[tuple[str, Json, str]]:
    """Key, value and origin of every leaf, in the order of the schema."""
    leaves = ((".".join(path), value) for path, value in _leaves(dump_config(loaded.config)))
    return [(key, value, loaded.origins[key]) for key, value in leaves]


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
        key = str(getattr(error, "full_key", None) or "")
        place = places.where(tuple(re.split(r"[.\[\]]+", key)))
        raise ConfigError(
            f"{place}: '{key}': {str(error).splitlines()[0]}",
            hint=r"${key.sub} is replaced by that key's value, ${oc.env:NAME} by that variable's; \${ is a literal ${",
            key=key,
        ) from error
    result: dict[str, Any] = _only(resolved, given)
    return result


def _is_free(keys: Sequence[str]) -> bool:
    """Whether a path leads to a section whose keys are not fixed, such as ``strategy``, or into one."""
    return any(isinstance(_kind_at(keys[:end]), inspect.DictType) for end in range(1, len(keys) + 1))


def is_section(keys: Sequence[str]) -> bool:
    """Whether a path leads to a section of a run.yaml, also one in a section of free keys (``arguments.train``)."""
    return isinstance(_kind_at(keys), (inspect.StructType, inspect.DictType))


def is_known(keys: Sequence[str]) -> bool:
    """Whether the schema has this key. In sections of free keys it knows none."""
    return _kind_at(keys) is not None and not _is_free(keys[:-1])


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
        raise ConfigError(f"on the command line: '{override}' is not key=value", hint="for example rounds=3")
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


def _absolute_paths(tree: dict[str, Any], places: Places, elsewhere: Elsewhere | None) -> None:
    def absolute(path: tuple[str, ...], value: str) -> str:
        is_typed = places.line(path) == COMMAND_LINE
        base = str(Path.cwd() if is_typed else Path(places.source_of(path)).parent.absolute())
        if elsewhere is not None and not is_typed and not os.path.exists(os.path.join(base, os.path.expanduser(value))):
            value = elsewhere(value) or value
        if path[-1] == "folders" and any(sign in value for sign in "*?["):
            base = glob.escape(base)  # only the user's own text is a pattern
        only_folders = "/" if path[-1] == "folders" and value.endswith("/") else ""  # it matches folders only
        return os.path.abspath(os.path.join(base, os.path.expanduser(value))) + only_folders

    trackers = tree.get("tracking")
    number = len(trackers) if isinstance(trackers, list) else 0
    of_trackers = [f"tracking.{place}.{name}" for place in range(number) for name in ("file", "folder")]
    for key in (*PATHS, *of_trackers):
        *sections, last = path = tuple(key.split("."))
        section: Any = tree
        for name in sections:
            if isinstance(section, list):
                section = section[int(name)]
            else:
                section = section.get(name) if isinstance(section, dict) else None
        value = section.get(last) if isinstance(section, dict) else None
        if isinstance(value, list):
            section[last] = [
                absolute(path, one) if isinstance(one, str) and one and not _TRUSTED.match(one) else one
                for one in value
            ]
        elif isinstance(value, str) and value and not _is_a_name(last, value):
            section[last] = absolute(path, value)


def _is_path(entry: Json) -> bool:
    """Whether an entry of a list is a path; those of trust.allow can be digests or keys."""
    return isinstance(entry, str) and bool(entry) and not _TRUSTED.match(entry)


def _is_a_name(key: str, value: str) -> bool:
    """Whether the value of a key that may have a path is something else: the name of a dataset, an address."""
    return (key == "dataset" and not value.endswith(DATASET_SUFFIXES)) or (key == "database" and "://" in value)


def _leaves(data: Mapping[str, Any], path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    leaves: list[tuple[tuple[str, ...], Any]] = []
    for key, value in data.items():
        if isinstance(value, dict) and value:
            leaves += _leaves(value, (*path, key))
        else:
            leaves.append(((*path, key), value))
    return leaves


def _given(tree: Any, path: tuple[str, ...]) -> bool:
    for key in path:
        if not isinstance(tree, dict) or key not in tree:
            return False
        tree = tree[key]
    return True


# ---- rules that types cannot express


_PATH: tuple[str, Callable[[Any], bool]] = ("a path", lambda value: bool(value) and "\0" not in value)

_KEEP: tuple[str, Callable[[Any], bool]] = (KeepRule.ALLOWED, lambda value: KeepRule.parse(value) is not None)

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
    ),
)
_TRUSTED = re.compile(r"(sha256|ed25519):")  # other entries of trust.allow are paths
_TRUSTED_WHOLE = re.compile(r"sha256:[0-9a-f]{64}|ed25519:[A-Za-z0-9+/]{43}=")

_RULES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "package": _PATH,
    "seed_model": _PATH,
    "buffers": ("a list of patterns, none of them empty", lambda value: value is None or all(value)),
    "name": (
        "letters, digits, '.', '_' and '-', not beginning with '.' or '-'",
        lambda value: re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", value) is not None,
    ),
    "clients.folders": _PATH,
    "clients.entities": _PATH,
    "evaluation.server.data": _PATH,
    "executor.needs.gpus": (
        "0, a fraction of one GPU from 0.001, or a whole number up to 1024",
        lambda value: value == 0 or 0.001 <= value <= 1 or (1 < value <= 1024 and value == int(value)),
    ),
    "isolate.read": ("a list of paths", lambda value: all(path and "\0" not in path for path in value)),
    "keep.models": _KEEP,
    "keep.task_folders": _KEEP,
    "trust.allow": (
        "a list of sha256:<64 hexadecimal digits>, ed25519:<base64 of a public key> and paths of public keys",
        lambda value: all(
            _PATH[1](entry) and (_TRUSTED_WHOLE.fullmatch(entry) or not _TRUSTED.match(entry)) for entry in value
        ),
    ),
    "trust.signature": _PATH,
}


def _check_values(config: RunConfig, places: Places) -> None:
    for key, (allowed, holds) in _RULES.items():
        path = tuple(key.split("."))
        value: Any = config
        for name in path:
            value = getattr(value, name, None)
        if value is not None and not holds(value):
            raise wrong_value(path, value, allowed, places)
    _check_arguments(config, places)
    problems = (_of_clients(config.clients), _of_links(config), _of_sections(config), _of_environment(config))
    for path, problem, hint in itertools.chain(*problems, _of_groups_environment(config)):
        raise ConfigError(f"{places.where(path)}: {problem}", hint=hint, key=".".join(path))


Problem: TypeAlias = tuple[tuple[str, ...], str, str]  # the path of a key, what is wrong with it, and what to do


def _of_sections(config: RunConfig) -> Iterator[Problem]:
    if config.isolate.enabled and config.executor.name == "resident":
        problem = (
            "'isolate.enabled' excludes the executor 'resident', whose interpreters serve one client after another"
        )
        yield ("isolate", "enabled"), problem, "set executor.name to forkserver or process"
    if config.validation.count is not None and config.validation.fraction != 1.0:
        problem = "'validation.count' excludes 'validation.fraction'"
        yield ("validation", "count"), problem, "remove one of them; null unsets a key"
    yield from _of_stop(config.stop)
    if config.executor.needs.gpu_memory_bytes is not None and not config.executor.needs.gpus:
        problem = "'executor.needs.gpu_memory_bytes' is set, but executor.needs.gpus is 0"
        hint = "set executor.needs.gpus to a fraction of a GPU, such as 0.1, or to a whole number"
        yield ("executor", "needs", "gpu_memory_bytes"), problem, hint


def _of_stop(stop: StopConfig | None) -> Iterator[Problem]:
    if stop is None:
        return
    if stop.at_least is not None and stop.at_most is not None:
        yield ("stop", "at_most"), "'stop.at_least' excludes 'stop.at_most'", "remove one of them; null unsets a key"
    for key, mode in (("at_least", "max"), ("at_most", "min")):
        value = getattr(stop, key)
        if value is not None and not math.isfinite(value):
            yield ("stop", key), f"'stop.{key}' must be a finite number, found {value}", "use a finite number"
        if value is not None and stop.mode not in (None, mode):
            problem = f"'stop.{key}' means that the {'highest' if mode == 'max' else 'lowest'} value is best"
            yield (
                ("stop", "mode"),
                f"{problem}, and 'stop.mode' is {stop.mode}",
                f"remove stop.mode, or set it to {mode}",
            )


def _of_clients(clients: ClientsConfig) -> Iterator[Problem]:
    hint = "set folders (one per client), or count, or count and data (fedpkg splits it); null unsets a key"
    data, is_counted = clients.data, clients.count is not None or clients.entities is not None
    if clients.folders is not None and data is not None:
        yield ("clients",), "'clients.folders' excludes 'clients.data'", hint
    elif clients.folders is None and data is None and not is_counted:
        yield ("clients",), "'clients' sets neither 'count' nor 'folders'", hint
    if data is not None:
        yield from _of_within(data.within)


def _of_within(within: Mapping[str, float]) -> Iterator[Problem]:
    path = ("clients", "data", "within")
    if strange := next((name for name in within if not re.fullmatch("[a-z]{1,20}", name) or name == "train"), None):
        problem = f"'{strange}' in 'clients.data.within' cannot be the name of a part"
        yield (*path, strange), problem, "use validation, test, or another word; train gets the rest"
    if sum(within.values()) >= 1:
        told = ", ".join(f"{name}: {value:g}" for name, value in within.items())
        yield path, f"'clients.data.within' leaves nothing to train on: {{{told}}}", "let the fractions add up to less"


def _can_be_a_link(name: str) -> bool:
    """Whether a link can be at this path: in the folder of fedn.yaml, in a client folder above it, or absolute."""
    if "\0" in name or not name or posixpath.normpath(name) != name:
        return False
    parts = name.split("/")
    above = parts.count("..")
    first = parts[above] if above < len(parts) else ""
    if name.startswith("/"):
        return len(parts) > 2
    taken = first in ("", ".") or (above and first in IN_A_VERSION) or (above > 1 and re.match(r"\d+-", first))
    return name not in SPEC_FILES and above <= 3 and not taken


def _of_links(config: RunConfig) -> Iterator[Problem]:
    clients = config.clients
    for name, target in clients.links.items():
        path = ("clients", "links", name)
        if not _can_be_a_link(name):
            hint = "use the path that the package's program opens, for example data, client.yaml or ../data"
            yield path, f"'{name}' in 'clients.links' cannot be the name of a link", hint
        elif name.startswith("/") and not config.isolate.enabled:
            problem = f"'{name}' in 'clients.links' is a path that all clients would share"
            yield path, problem, "set isolate.enabled (--isolate), so that each client has its own; or change the path"
        if ".." in target.split("/") or not target or "\0" in target:
            problem = f"'clients.links.{name}' is '{target}', which is not in the client's data"
            yield path, problem, "use '.' for all of the data, a path in it, or the absolute path of a file"
    is_of_data = any(not target.startswith("/") for target in clients.links.values())
    if is_of_data and clients.folders is None and clients.data is None and clients.entities is None:
        yield ("clients", "links"), "'clients.links' needs data to link to", "set clients.folders or clients.data"


def _check_linked_files(config: RunConfig, places: Places) -> None:
    for name, target in config.clients.links.items():
        if target.startswith("/") and not os.path.isfile(target):
            raise ConfigError(
                f"{places.where(('clients', 'links', name))}: 'clients.links.{name}' is '{target}', and there is no "
                "such file",
                hint="name a file that all clients may read, or use '.' or a path in each client's data",
                key=f"clients.links.{name}",
            )


def _of_environment(config: RunConfig) -> Iterator[Problem]:
    for name, value in config.environment.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or "\0" in value:
            hint = "a name has letters, digits and '_', and does not begin with a digit; a value has no NUL character"
            yield ("environment", name), f"'{name}' in 'environment' cannot be set", hint
        if name in (VISIBLE, ORDER):
            hint = f"set executor.needs.gpus; to use only certain GPUs, start fedpkg itself with {VISIBLE}"
            yield ("environment", name), f"'{name}' in 'environment' is set by fedpkg", hint
        if name in THREAD_VARIABLES and not re.fullmatch("[1-9][0-9]{0,3}", value):
            yield ("environment", name), f"'{name}' in 'environment' is '{value}'", "use a whole number from 1"
        if name == "PYTHONHASHSEED" and value != "random" and not re.fullmatch("[0-9]{1,9}", value):
            yield ("environment", name), f"'{name}' in 'environment' is '{value}'", "use a whole number, or random"


def _of_groups_environment(config: RunConfig) -> Iterator[Problem]:
    clients = config.clients
    for group, variables in clients.environment.items():
        if group not in clients.groups:
            problem = f"'clients.environment' has names of groups as keys, and 'clients.groups' has no '{group}'"
            yield ("clients", "environment", group), problem, f"list its clients: clients.groups.{group}: [client-1]"
        for name, value in variables.items():
            is_of_a_run = name in (VISIBLE, ORDER, "PYTHONHASHSEED", *THREAD_VARIABLES) or name.startswith("FEDPKG_")
            if is_of_a_run or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or "\0" in value:
                problem = f"'{name}' in 'clients.environment.{group}' cannot be set for some clients only"
                yield ("clients", "environment", group, name), problem, "remove it, or set it for all in 'environment'"


def _check_reserved(config: RunConfig, places: Places) -> None:
    """Refuse variables that recorded sessions may have, and new ones may not."""
    if name := next((name for name in config.environment if name.startswith("FEDPKG_")), None):
        raise ConfigError(
            f"{places.where(('environment', name))}: '{name}' in 'environment' is reserved for fedpkg",
            hint="use a name that does not begin with FEDPKG_; values for the program can also go into run_config",
            key=f"environment.{name}",
        )


def _check_arguments(config: RunConfig, places: Places) -> None:
    for entry_point, arguments in config.arguments.items():
        _check_names(arguments, ("arguments", entry_point), places)
    for name, value in config.run_config.items():
        _check_finite(value, ("run_config", name), places)


def _check_names(arguments: Mapping[str, Json], section: tuple[str, ...], places: Places) -> None:
    """Refuse what cannot be an argument; one in a section is called ``section.name``."""
    for name, value in arguments.items():
        path = (*section, name)
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", name):
            raise ConfigError(
                f"{places.where(path)}: '{name}' in '{'.'.join(section)}' cannot be the name of an argument",
                hint="use letters, digits, '_', '-' and '.', and begin with a letter or '_'; it becomes --name=value",
                key=".".join(path),
            )
        if isinstance(value, dict) and list(value.values()) == [None]:  # perhaps {client_id} without quotes
            raise wrong_value(path, value, "one value, a list, or a section of values", places)
        if isinstance(value, dict):
            _check_names(value, path, places)
        else:
            _check_finite(value, path, places)


def _check_finite(value: Json, path: tuple[str, ...], places: Places) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise wrong_value(path, value, "a finite number (JSON has no other; quote it to make it text)", places)
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        _check_finite(part, (*path, str(key)), places)
