"""Compose an experiment: its root file, the chosen options and the command line become one checked configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpkg.config_reading import EXPERIMENT, LoadedConfig, Resolve, checked, is_known, render
from fedpkg.config_shape import Places
from fedpkg.errors import ConfigError
from fedpkg.experiments.changing import PARAM_NAME, PARAMS, changes
from fedpkg.experiments.folders import ExperimentFolder
from fedpkg.experiments.overrides import not_installed, parse
from fedpkg.session.configuration import resolved

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

    from fedpkg.experiments.choosing import Chosen
    from fedpkg.types import Json


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
    chosen = _choose(experiment, parsed)
    tree, places = _merged(experiment, chosen.files)
    params = _params(tree, places, experiment)
    assignments = changes(chosen.rest, tree, params, places, experiment)
    loaded = checked(
        tree,
        assignments,
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


def _choose(experiment: ExperimentFolder, parsed: Sequence[Override]) -> Chosen:
    try:
        from fedpkg.experiments.choosing import choose
    except ModuleNotFoundError as error:
        raise not_installed(error) from error
    return choose(experiment, parsed)


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
    is_meant = experiment.root_path.name == EXPERIMENT  # a run.yaml may stand beside any folders
    if is_meant and experiment.root.defaults is None and experiment.groups:
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
        if taken or not re.fullmatch(PARAM_NAME, name):
            raise ConfigError(
                f"{places.where((PARAMS, name))}: '{name}' in 'params' "
                + (f"is also {taken}" if taken else "cannot be a name"),
                hint="choose another name, of letters, digits and '_'",
                key=f"{PARAMS}.{name}",
            )
    return params
