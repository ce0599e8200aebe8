"""Overrides that set, add or remove keys of a composed experiment: what exists, and what is said if it does not."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fedpkg.config import RunConfig
from fedpkg.config_reading import Assignment, is_known, is_section, keys_of
from fedpkg.config_shape import Places
from fedpkg.errors import ConfigError, nearest
from fedpkg.experiments.folders import ExperimentFolder

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

PARAMS = "params"
PARAM_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
# Sections of free keys that are checked by what they name, so that a misspelt key is found there.
_BY_NAME = ("strategy", "sampler", "clients.data.partition")


def changes(
    overrides: Sequence[Override],
    tree: dict[str, Any],
    params: dict[str, Any],
    places: Places,
    experiment: ExperimentFolder,
) -> list[Assignment]:
    """Apply overrides in order: parameters and removals at once; the rest are returned as assignments.

    As in hydra, a key must exist unless ``+`` or ``++`` adds it. Keys of a run.yaml exist also if no file sets them.

    Raises:
        ConfigError: A key does not exist, or ``+`` adds one that does.
    """
    now: dict[str, Any] = copy.deepcopy({**tree, PARAMS: params})  # the tree as the overrides so far leave it
    assignments: list[Assignment] = []
    for override in overrides:
        keys = _keys(override, now[PARAMS])
        value: Any = override.value()
        _check(override, keys, now, experiment)
        inner = (params, keys[1:]) if keys[0] == PARAMS else (tree, keys)
        if override.is_delete():
            for one, path in ((now, keys), inner):
                _remove(one, path)
            places.forget(keys)
            assignments = [one for one in assignments if one[0][: len(keys)] != keys]
            continue
        for path, leaf in _leaves(keys, value):
            if leaf == {} and ".".join(path) not in _BY_NAME and _exists(now, path):
                continue
            _set(now, path, leaf)
            if keys[0] == PARAMS:
                _set(params, path[1:], leaf)
                places.override(path, leaf)
            else:
                assignments.append((path, leaf))
    return assignments


def _leaves(keys: tuple[str, ...], value: Any) -> Iterator[Assignment]:
    """What a value sets: a section is merged key by key, as in hydra, but one that names something is replaced."""
    if not isinstance(value, dict) or not value or ".".join(keys) in _BY_NAME:
        yield keys, value
        return
    for key, part in value.items():
        yield from _leaves((*keys, str(key)), part)


def _keys(override: Override, params: Mapping[str, Any]) -> tuple[str, ...]:
    """The path of an override's key; ``lr`` is short for ``params.lr``."""
    keys = tuple(override.key_or_group.split("."))
    is_new = override.is_add() and len(keys) == 1 and re.fullmatch(PARAM_NAME, keys[0]) and keys[0] != PARAMS
    return (PARAMS, *keys) if (keys[0] in params or is_new) and not is_known(keys[:1]) else keys


def _check(override: Override, keys: tuple[str, ...], now: Mapping[str, Any], experiment: ExperimentFolder) -> None:
    exists = _exists(now, keys)
    can_set = exists or (not override.is_delete() and _can_set(keys))
    adds = override.is_add() or override.is_force_add()
    if override.package is not None or keys == (PARAMS,) or not (can_set or adds):
        raise _not_there(override, keys, now, experiment)
    if override.is_add() and exists and not isinstance(override.value(), (dict, list)):
        raise ConfigError(
            f"on the command line: '{override.input_line}' adds a key that is there already",
            hint=f"{str(override.input_line)[1:]} sets it",
            key=".".join(keys),
        )


def _can_set(keys: tuple[str, ...]) -> bool:
    """Whether a key that no file sets is known to fedpkg all the same."""
    return is_known(keys) or any(".".join(keys).startswith(f"{section}.") for section in _BY_NAME)


def _exists(tree: Any, keys: tuple[str, ...]) -> bool:
    for key in keys:
        if not isinstance(tree, dict) or key not in tree:
            return False
        tree = tree[key]
    return True


def _set(tree: dict[str, Any], keys: tuple[str, ...], value: Any) -> None:
    for key in keys[:-1]:
        inner = tree.get(key)
        tree[key] = inner if isinstance(inner, dict) else {}
        tree = tree[key]
    tree[keys[-1]] = value


def _remove(tree: Any, keys: tuple[str, ...]) -> None:
    for key in keys[:-1]:
        tree = tree.get(key) if isinstance(tree, dict) else None
    if isinstance(tree, dict):
        tree.pop(keys[-1], None)


def _not_there(
    override: Override, keys: tuple[str, ...], now: Mapping[str, Any], experiment: ExperimentFolder
) -> ConfigError:
    key = ".".join(keys)
    if keys == (PARAMS,):
        return ConfigError(
            "on the command line: 'params' is set name by name", hint="params.lr=0.1, or lr=0.1", key=key
        )
    if len(keys) == 1:
        known = [*experiment.groups, *now[PARAMS], *RunConfig.__struct_fields__]
        return ConfigError(
            f"on the command line: '{key}' is neither a key, a parameter nor a group{nearest(key, known)}",
            hint=f"groups in {experiment.looked_in()}: {', '.join(experiment.groups) or 'none'}; "
            f"params: {', '.join(now[PARAMS]) or 'none'}",
            key=key,
        )
    section: Any = now
    for name in keys[:-1]:
        section = section.get(name) if isinstance(section, dict) else None
    known = [*keys_of(keys[:-1]), *(map(str, section) if isinstance(section, dict) else ())]
    hint = f"+{key}=… adds a key that is not there"
    if override.is_delete():
        hint = "there is nothing to remove"
    elif is_known(keys[:1]) and not is_section(keys[:-1]):
        hint = f"`fedpkg config explain {keys[0]}` lists the keys"
    elif keys_of(keys[:-1]):
        hint = f"known keys here: {', '.join(known)}"
    return ConfigError(
        f"on the command line: no file of the experiment sets '{key}'{nearest(keys[-1], known)}", hint=hint, key=key
    )
