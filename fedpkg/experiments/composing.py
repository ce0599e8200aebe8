"""Compose an experiment: its root file, the chosen options and the command line become one checked configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpkg.config import RunConfig
from fedpkg.config_reading import Assignment, LoadedConfig, Resolve, checked, is_known, render
from fedpkg.config_shape import Places
from fedpkg.errors import ConfigError, nearest
from fedpkg.experiments.folders import ExperimentFolder
from fedpkg.experiments.overrides import not_installed, parse
from fedpkg.session.configuration import resolved

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

    from fedpkg.types import Json

PARAMS = "params"
# Sections of free keys that are checked by what they name, so that a misspelt key is found there.
_BY_NAME = ("strategy", "sampler", "clients.data.partition")


@dataclass(frozen=True)
class ComposedConfig(LoadedConfig):
    """A configuration that is composed of the files of an experiment.

    Args:
        experiment: Its folder.
        choices: The option of each group; None: no option.
        params: The experiment's own parameters, which ``${lr}`` refers to.
        param_origins: Where each of them was set.
    """

    experiment: ExperimentFolder | None = None
    choices: Mapping[str, str | None] = field(default_factory=dict)
    params: Mapping[str, Json] = field(default_factory=dict)
    param_origins: Mapping[str, str] = field(default_factory=dict)


def compose(
    folder: ExperimentFolder | Path | str,
    overrides: Sequence[str] = (),
    *,
    search_path: Sequence[Path | str] = (),
    resolve: Resolve | None = resolved,
) -> ComposedConfig:
    """Compose an experiment and check the result as a run.yaml is checked.

    The files are merged in the order of hydra's defaults list. Then the overrides are applied: ``method=scaffold``
    chooses an option, ``rounds=3`` sets a key, ``lr=0.1`` a parameter of the section ``params``, ``+key=1`` adds,
    ``++key=1`` sets or adds, and ``~key`` removes. A relative path starts at the folder of the file that sets it, or
    else (if nothing is there) at a folder of the search path; in overrides, at the current directory.

    Args:
        folder: An experiment, its folder, or its root file.
        search_path: Folders with further groups, after the experiment's own.

    Raises:
        ConfigError: A group, option, key or value is wrong, with its file and line; or hydra-core is not installed.
    """
    experiment = folder if isinstance(folder, ExperimentFolder) else ExperimentFolder(folder, search_path)
    parsed = parse(overrides)
    _refuse_sweeps(parsed)
    _need_defaults(experiment)
    try:
        from fedpkg.experiments.choosing import choose
    except ModuleNotFoundError as error:
        raise not_installed(error) from error
    chosen = choose(experiment, parsed)
    tree, places = _merged(experiment, chosen.files)
    params = _params(tree, places, experiment)
    removals, assignments = _changes(chosen.rest, tree, params, experiment)
    for keys in removals:
        _remove(params if keys[0] == PARAMS else tree, keys[keys[0] == PARAMS :])
        places.forget(keys)
    for keys, value in assignments:
        if keys[0] == PARAMS:
            params[".".join(keys[1:])] = value
            places.override(keys, value)
    loaded = checked(
        tree,
        [one for one in assignments if one[0][0] != PARAMS],
        places,
        resolve,
        names={**params, PARAMS: params},
        elsewhere=experiment.found,
    )
    origins = {name: places.origin((PARAMS, name)) for name in params}
    return ComposedConfig(loaded.config, loaded.origins, experiment, chosen.choices, params, origins)


def render_composed(composed: ComposedConfig) -> list[tuple[str, Json, str]]:
    """Name, value and origin of every parameter, then of every key in the order of the schema."""
    params = [(f"{PARAMS}.{name}", value, composed.param_origins[name]) for name, value in composed.params.items()]
    return [*params, *render(composed)]


def _refuse_sweeps(parsed: Sequence[Override]) -> None:
    for override in parsed:
        if override.is_sweep_override():
            raise ConfigError(
                f"on the command line: '{override.input_line}' has several values",
                hint="`fedpkg experiment sweep` runs each of them; a list is [a,b], text with a comma is quoted: "
                f"\"{override.key_or_group}='a,b'\"",
                key=override.key_or_group,
            )


def _need_defaults(experiment: ExperimentFolder) -> None:
    if experiment.root.defaults is None and experiment.groups:
        group = experiment.groups[0]
        raise ConfigError(
            f"{experiment.root_path}: there is no 'defaults:' list, so nothing is chosen of the groups "
            f"{', '.join(experiment.groups)}",
            hint=f"begin it with defaults: [{group}: {experiment.options(group)[0]}, _self_]; [] chooses nothing",
            key="defaults",
        )


def _merged(experiment: ExperimentFolder, files: Sequence[Any]) -> tuple[dict[str, Any], Places]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    merged: Any = OmegaConf.create({})
    places = Places(str(experiment.root_path))
    for one, section in files:
        nested: Any = one.tree
        for key in reversed(section):
            nested = {key: nested}
        try:
            merged = OmegaConf.merge(merged, nested)
        except (TypeError, OmegaConfBaseException) as error:  # one is a list, the other a mapping
            reason = str(error).splitlines()[0] if str(error) else "of another kind than what it is merged into"
            raise ConfigError(f"{one.path}: cannot be merged with the files before it: {reason}") from error
        places.merge_file(str(one.path), one.tree, one.lines, section)
    tree: Any = OmegaConf.to_container(merged)
    return tree, places


def _params(tree: dict[str, Any], places: Places, experiment: ExperimentFolder) -> dict[str, Any]:
    """Take the section ``params`` out of the tree."""
    params = tree.pop(PARAMS, None)
    if params is None:
        return {}
    if not isinstance(params, dict):
        raise ConfigError(
            f"{places.where((PARAMS,))}: 'params' must be a section of 'name: value' lines",
            hint="for example params: {lr: 0.1}; ${lr} then stands for it anywhere in the experiment",
            key=PARAMS,
        )
    for name in params:
        taken = "a key of a run.yaml" if is_known((name,)) else "a group" if experiment.has_group(name) else None
        if taken or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ConfigError(
                f"{places.where((PARAMS, name))}: '{name}' in 'params' "
                + (f"is also {taken}" if taken else "cannot be a name"),
                hint="choose another name, of letters, digits and '_'",
                key=f"{PARAMS}.{name}",
            )
    return params


def _changes(
    rest: Sequence[Override], tree: Mapping[str, Any], params: Mapping[str, Any], experiment: ExperimentFolder
) -> tuple[list[tuple[str, ...]], list[Assignment]]:
    """The keys that overrides remove, and those that they set."""
    removals: list[tuple[str, ...]] = []
    assignments: list[Assignment] = []
    for override in rest:
        keys = tuple(override.key_or_group.split("."))
        is_param = keys[0] in params or (override.is_add() and len(keys) == 1 and not is_known(keys))
        if is_param and not is_known(keys[:1]):
            keys = (PARAMS, *keys)
        exists = _exists({**tree, PARAMS: params}, keys)
        value: Any = override.value()
        adds = override.is_add() or override.is_force_add()
        if override.package is not None or not (adds or exists or _can_set(keys)):
            raise _not_there(override, keys, tree, params, experiment)
        if override.is_delete():
            if not exists:
                raise _not_there(override, keys, tree, params, experiment)
            removals.append(keys)
        elif override.is_add() and exists and not isinstance(value, (dict, list)):
            raise ConfigError(
                f"on the command line: '{override.input_line}' adds a key that is there already",
                hint=f"{override.input_line[1:] if override.input_line else ''} sets it",
                key=".".join(keys),
            )
        else:
            assignments.append((keys, value))
    return removals, assignments


def _can_set(keys: tuple[str, ...]) -> bool:
    """Whether a key that no file sets is known to fedpkg all the same."""
    return is_known(keys) or any(".".join(keys).startswith(f"{section}.") for section in _BY_NAME)


def _exists(tree: Any, keys: tuple[str, ...]) -> bool:
    for key in keys:
        if not isinstance(tree, dict) or key not in tree:
            return False
        tree = tree[key]
    return True


def _remove(tree: Any, keys: tuple[str, ...]) -> None:
    for key in keys[:-1]:
        tree = tree[key]
    del tree[keys[-1]]


def _not_there(
    override: Override,
    keys: tuple[str, ...],
    tree: Mapping[str, Any],
    params: Mapping[str, Any],
    experiment: ExperimentFolder,
) -> ConfigError:
    key = ".".join(keys)
    if len(keys) == 1:
        known = [*experiment.groups, *params, *RunConfig.__struct_fields__]
        return ConfigError(
            f"on the command line: '{key}' is neither a key, a parameter nor a group{nearest(key, known)}",
            hint=f"groups in {experiment.looked_in()}: {', '.join(experiment.groups) or 'none'}; "
            f"params: {', '.join(params) or 'none'}",
            key=key,
        )
    section: Any = {**tree, PARAMS: params}
    for name in keys[:-1]:
        section = section.get(name) if isinstance(section, dict) else None
    near = nearest(keys[-1], map(str, section)) if isinstance(section, dict) else ""
    return ConfigError(
        f"on the command line: no file of the experiment sets '{key}'{near}",
        hint=f"+{key}=… adds a key that is not there" if not override.is_delete() else None,
        key=key,
    )
