"""The files of an experiment that are chosen, in the order in which they are merged: hydra's defaults list.

hydra-core computes the list. Its Compose API is not used as a whole: that keeps one global state per process (a program
with ``hydra.main`` has its own), adds hydra's own section, and does not say which file set a value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra._internal.config_repository import ConfigRepository
from hydra._internal.defaults_list import create_defaults_list
from hydra.core.default_element import ConfigDefault, InputDefault
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, MissingConfigException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import OmegaConf

from fedpkg.config_reading import is_known
from fedpkg.errors import ConfigError, nearest
from fedpkg.experiments.folders import SUFFIX, ExperimentFolder, OptionFile


@dataclass(frozen=True)
class Chosen:
    """What is chosen.

    Args:
        files: The files in the order in which they are merged, each with the section that its keys go to.
        choices: The option of each group; None: no option.
        rest: The overrides that set keys and choose no option.
    """

    files: list[tuple[OptionFile, tuple[str, ...]]]
    choices: Mapping[str, str | None]
    rest: list[Override]


def choose(experiment: ExperimentFolder, overrides: Sequence[Override]) -> Chosen:
    """Choose the files that ``defaults`` and the overrides name.

    Raises:
        ConfigError: A group or option does not exist, is chosen twice, or is overridden without being chosen; the files
            name each other in a cycle.
    """
    for override in overrides:
        _check_option(experiment, override)
    repository = _Files(experiment)
    try:
        found = create_defaults_list(
            repository, experiment.root_name, list(overrides), prepend_hydra=False, skip_missing=False
        )
    except MissingConfigException as error:
        raise _missing(experiment, overrides, str(error.missing_cfg_file), repository.loaded) from error
    except RecursionError as error:
        raise _cycle(experiment) from error
    except (ConfigCompositionException, ValueError) as error:
        raise _refused(experiment, overrides, str(error)) from error
    files = []
    for default in found.defaults:
        one = experiment.file(str(default.config_path))
        if one is not None:
            files.append((one, tuple(default.package.split(".")) if default.package else ()))
    return Chosen(files, dict(found.overrides.known_choices), list(found.config_overrides))


class _Files(ConfigRepository):
    """An experiment's files as hydra's defaults list reads them."""

    def __init__(self, experiment: ExperimentFolder) -> None:
        self.experiment = experiment
        self.loaded: dict[str, OptionFile] = {}

    def load_config(self, config_path: str) -> ConfigResult | None:
        one = self.experiment.file(config_path)
        if one is None:
            return None
        self.loaded[config_path] = one
        defaults: list[InputDefault] = self._create_defaults_list(config_path, OmegaConf.create(one.defaults or []))
        if defaults and not any(default.is_self() for default in defaults):
            defaults.append(ConfigDefault(path="_self_"))  # hydra does the same, with a warning
        return ConfigResult("fedpkg", str(one.path), OmegaConf.create({}), {"package": one.package}, defaults)

    def group_exists(self, config_path: str) -> bool:
        return self.experiment.has_group(config_path)

    def config_exists(self, config_path: str) -> bool:
        return self.experiment.file(config_path) is not None

    def get_group_options(self, group_name: str, results_filter: ObjectType | None = ObjectType.CONFIG) -> list[str]:
        return self.experiment.options(group_name)

    def get_sources(self) -> list[ConfigSource]:
        return []


def _check_option(experiment: ExperimentFolder, override: Override) -> None:
    """Refuse an override of a group whose value is no option's name."""
    group, value = override.key_or_group, override.value()
    if not experiment.has_group(group) or override.is_delete() or is_known((group,)):
        return
    if override.is_force_add() or not isinstance(value, (str, list)):
        quoted = f"quote the name: \"{group}='{value}'\"; "
        raise ConfigError(
            f"on the command line: '{override.input_line}': '{group}' is a group, whose options are names",
            hint=quoted * (str(value) in experiment.options(group))
            + f"{group}=…, one of {', '.join(experiment.options(group))}; ~{group} chooses none",
            key=group,
        )


def _missing(
    experiment: ExperimentFolder, overrides: Sequence[Override], name: str, loaded: Mapping[str, OptionFile]
) -> ConfigError:
    group, _, option = name.rpartition("/")
    place = _place_of(overrides, group, option, loaded)
    if not group:
        return ConfigError(
            f"{place}: there is no file '{option}{SUFFIX}'{nearest(option, experiment.options(''))}",
            hint=f"looked in {experiment.looked_in()}",
            key="defaults",
        )
    options = experiment.options(group)
    if not options:
        return ConfigError(
            f"{place}: there is no group '{group}'{nearest(group, experiment.groups)}",
            hint=f"looked for its folder in {experiment.looked_in()}; groups: {', '.join(experiment.groups) or 'none'}",
            key=group,
        )
    return ConfigError(
        f"{place}: '{group}' has no option '{option}'{nearest(option, options)}",
        hint=f"its options are {', '.join(options)} (in {experiment.looked_in(group)})",
        key=group,
    )


def _place_of(overrides: Sequence[Override], group: str, option: str, loaded: Mapping[str, OptionFile]) -> str:
    """Where an option was named: on the command line, or in a list ``defaults``."""
    for override in overrides:
        value = override.value()
        if override.key_or_group == group and option in (value if isinstance(value, list) else [value]):
            return "on the command line"
    for one in loaded.values():
        for number, item in enumerate(one.defaults or ()):
            names = (
                [str(item)] if isinstance(item, str) else [str(next(iter(item))), *_texts(next(iter(item.values())))]
            )
            if option in (name.rpartition("/")[2] for name in names):
                return one.place("defaults", str(number))
    return next(iter(loaded.values())).place("defaults") if loaded else "defaults"


def _texts(value: Any) -> Iterator[str]:
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, str):
            yield one


def _cycle(experiment: ExperimentFolder) -> ConfigError:
    """Name the files that name each other, found by following their lists."""

    def follow(name: str, trail: tuple[str, ...]) -> tuple[str, ...] | None:
        if name in trail:
            return (*trail[trail.index(name) :], name)
        one = experiment.file(name)
        for other in _named(name, (one.defaults if one else None) or []):
            if found := follow(other, (*trail, name)):
                return found
        return None

    found = follow(experiment.root_name, ()) or (experiment.root_name,)
    first = experiment.file(found[0])
    return ConfigError(
        f"{first.place('defaults') if first else experiment.root_path}: 'defaults' goes round in a circle: "
        + " → ".join(f"{name}{SUFFIX}" for name in found),
        hint="remove one of these from the list that names it",
        key="defaults",
    )


def _named(name: str, defaults: Sequence[Any]) -> Iterator[str]:
    """The files that a list names, as far as it says them in full."""
    base = name.rpartition("/")[0]

    def within(path: str) -> str:
        path = path.rpartition("@")[0] or path
        return path[1:] if path.startswith("/") else f"{base}/{path}" if base else path

    for item in defaults:
        if isinstance(item, str):
            if item != "_self_":
                yield within(item)
        else:
            ((group, option),) = item.items()
            yield from (f"{within(str(group).split(' ')[-1])}/{one}" for one in _texts(option))


def _refused(experiment: ExperimentFolder, overrides: Sequence[Override], said: str) -> ConfigError:
    """hydra's other errors, in its words; the frequent ones in our own."""
    first = " ".join(line.strip() for line in said.strip().splitlines())
    for override in overrides:
        group = override.key_or_group
        if first.startswith(f"Could not override '{override.get_key_element()}'. No match"):
            return ConfigError(
                f"on the command line: '{group}' is a group, but no 'defaults' list names it",
                hint=f"+{override.input_line} adds it to the list of {experiment.root_path}",
                key=group,
            )
        if first.startswith(f"Multiple values for {group}.") and override.is_add():
            return ConfigError(
                f"on the command line: '{override.input_line}' adds a group that has an option already",
                hint=f"{str(override.input_line)[1:]} chooses another option",
                key=group,
            )
        if first.startswith("Could not delete") and f"'{group}" in first:
            return ConfigError(
                f"on the command line: '{override.input_line}': no 'defaults' list names this option of '{group}'",
                key=group,
            )
    if first.startswith("You must specify '"):
        group = first.split("'")[1]
        return ConfigError(
            f"{experiment.root.place('defaults')}: '{group}' is ???, so each run must choose its option",
            hint=f"{group}=…, one of {', '.join(experiment.options(group))}",
            key=group,
        )
    is_typed = any(override.get_key_element().lstrip("+~") in first for override in overrides)
    return ConfigError(f"{'on the command line' if is_typed else experiment.root_path}: {first}", key="defaults")
