"""Rules for the values of a run.yaml that types cannot express."""

from __future__ import annotations

import itertools
import math
import os
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from fedpkg.config import ClientsConfig, KeepRule, RunConfig
from fedpkg.config_sections import StopConfig
from fedpkg.config_shape import Places, wrong_value
from fedpkg.devices import ORDER, THREAD_VARIABLES, VISIBLE
from fedpkg.errors import ConfigError
from fedpkg.fedn.names import SPEC_FILES
from fedpkg.waist.place import IN_A_VERSION

if TYPE_CHECKING:
    from fedpkg.types import Json

_PATH: tuple[str, Callable[[Any], bool]] = ("a path", lambda value: bool(value) and "\0" not in value)

_KEEP: tuple[str, Callable[[Any], bool]] = (KeepRule.ALLOWED, lambda value: KeepRule.parse(value) is not None)

TRUSTED = re.compile(r"(sha256|ed25519):")  # other entries of trust.allow are paths
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
            _PATH[1](entry) and (_TRUSTED_WHOLE.fullmatch(entry) or not TRUSTED.match(entry)) for entry in value
        ),
    ),
    "trust.signature": _PATH,
}


def check_values(config: RunConfig, places: Places) -> None:
    """Raise ConfigError for the first value that its type allows and a rule forbids."""
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


def check_linked_files(config: RunConfig, places: Places) -> None:
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


def check_reserved(config: RunConfig, places: Places) -> None:
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
