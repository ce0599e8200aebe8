"""What KEY=VALUE of a run.yaml can become when the Tab key is pressed: keys by section, then the values of a key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from click.shell_completion import CompletionItem
from msgspec import inspect

from fedpkg.cli.candidates import beginning, names_of_kind, paths
from fedpkg.config import NAMED_DATASETS
from fedpkg.config_keys import find_key, run_keys
from fedpkg.config_reading import PATHS
from fedpkg.config_shape import Places, options_of
from fedpkg.errors import ConfigError
from fedpkg.registry import Parameter, Registry

_Found: TypeAlias = Iterable[tuple[str, str]]
_ENTRY_POINTS = ("all", "train", "validate")  # sections of `arguments`
_PARTITION = "clients.data.partition"
_USUAL = {"strategy": "pipeline", "sampler": "uniform", _PARTITION: "iid"}


def of_run(words: Sequence[str], incomplete: str) -> list[CompletionItem]:
    """KEY=VALUE after these words: a RUN.yaml and what is set already."""
    key, equals, begun = incomplete.partition("=")
    section = next((each for each in _USUAL if key.startswith(f"{each}.") or (equals and key == each)), None)
    if section is not None:
        return _of_registered(section, _named(section, words), incomplete)
    if not equals:
        return beginning(incomplete, _keys(key.split(".")[:-1]))
    if key in PATHS:
        named = [(f"{key}={name}", "") for name in NAMED_DATASETS if key.endswith(".dataset")]
        return beginning(incomplete, named) + _paths(key, begun)
    return beginning(incomplete, [(f"{key}={value}", "") for value in _values(find_key(key).kind)])


def of_app(folder: Path, words: Sequence[str], incomplete: str) -> list[CompletionItem] | None:
    """KEY=VALUE of a message app's configuration, then run.KEY=VALUE of a run.yaml; None if it is no message app."""
    from fedpkg.compute_package.app import APP_FILE, read_app
    from fedpkg.session.app_run import OF_THE_RUN, is_app_folder, of_the_run

    if not is_app_folder(folder):
        return None
    if incomplete.startswith(OF_THE_RUN):
        found = of_run(of_the_run(words), incomplete.removeprefix(OF_THE_RUN))
        return [CompletionItem(OF_THE_RUN + item.value, type=item.type, help=item.help) for item in found]
    app, (key, equals, _begun) = read_app(folder / APP_FILE), incomplete.partition("=")
    if equals and isinstance(app.config.get(key), bool):
        return beginning(incomplete, [(f"{key}={value}", "") for value in ("true", "false")])
    keys = [(f"{key}=", f"as in {APP_FILE}: {value}") for key, value in app.config.items()]
    return beginning(incomplete, [*keys, (OF_THE_RUN, "keys of a run.yaml")])


def of_experiment(folder: Path, words: Sequence[str], incomplete: str) -> list[CompletionItem]:
    """GROUP=OPTION and parameters of an experiment, then KEY=VALUE of a run.yaml."""
    from fedpkg.experiments.folders import ExperimentFolder

    experiment = ExperimentFolder(folder)
    group, equals, begun = incomplete.lstrip("+~").partition("=")
    if equals and experiment.has_group(group):
        start = incomplete.removesuffix(begun.rpartition(",")[2])  # method=fedavg,sca: the last of several
        return beginning(incomplete, [(f"{start}{option}", "") for option in experiment.options(group)])
    params = experiment.root.tree.get("params")
    found = [(f"{name}=", f"one of {', '.join(experiment.options(name))}") for name in experiment.groups]
    found += [(f"{name}=", "a parameter of the experiment") for name in (params if isinstance(params, dict) else {})]
    return beginning(incomplete, found) + of_run((str(experiment.root_path), *words), incomplete)


def of_strategy(name: str, incomplete: str) -> list[CompletionItem]:
    """KEY=VALUE of a strategy or one of its parts."""
    registry = _registry("strategy")
    return beginning(
        incomplete, _of_parameters(registry, _parameters(registry, name), "", incomplete.partition("=")[0])
    )


def _of_registered(section: str, name: str, incomplete: str) -> list[CompletionItem]:
    """KEY=VALUE of a section whose keys are the parameters of the strategy, sampler or partitioner that it names."""
    registry, (key, _, begun) = _registry(section), incomplete.partition("=")
    if key == f"{section}.file":
        return _paths(key, begun)
    kind = registry.kinds[0]
    if key in (section, f"{section}.name"):
        return beginning(incomplete, [(f"{key}={name}", about) for name, about in names_of_kind(registry, kind)])
    found = [(f"{section}.name=", f"the name of a {kind}"), (f"{section}.file=", "a Python file that registers it")]
    found += [(f"{section}.{option.name}=", option.about) for option in registry.options.values()]
    return beginning(incomplete, [*found, *_of_parameters(registry, _parameters(registry, name), f"{section}.", key)])


def _of_parameters(registry: Registry, parameters: Mapping[str, Parameter], prefix: str, key: str) -> _Found:
    """Every parameter as ``key=``; of the one that is ``key``, its values."""
    for parameter in parameters.values():
        word, part = f"{prefix}{parameter.name}=", parameter.part
        if word != f"{key}=":
            yield word, parameter.about
        elif part is None:
            yield from ((f"{word}{value}", "") for value in _values(inspect.type_info(parameter.type)))
        else:
            names = names_of_kind(part.registry or registry, part.kind)
            yield from ((f"{word}[{name}]" if part.many else f"{word}{name}", about) for name, about in names)


def _registry(section: str) -> Registry:
    from fedpkg.samplers.registry import SAMPLERS
    from fedpkg.strategies.registry import STRATEGIES

    if section == _PARTITION:
        from fedpkg.data.partitioners.registry import PARTITIONERS  # here: it imports NumPy

        return PARTITIONERS
    return SAMPLERS if section == "sampler" else STRATEGIES


def _parameters(registry: Registry, name: str) -> Mapping[str, Parameter]:
    """Those of what goes by a name, of the first kind that has it."""
    from fedpkg.transforms.registry import TRANSFORMS

    for one in (registry, TRANSFORMS):
        for kind in one.kinds:
            with suppress(ConfigError):
                return one.find(kind, name, Places("the command line"), ()).parameters
    return {}


def _named(section: str, words: Sequence[str]) -> str:
    """The strategy, sampler or partitioner that the words name, else the RUN.yaml, else the usual one."""
    for word in reversed(words):
        for begin in (f"{section}.name=", f"{section}="):
            if word.startswith(begin):
                return word.removeprefix(begin)
    with suppress(Exception):  # there is no such file, or it is not as a run.yaml should be
        import yaml

        given = yaml.safe_load(Path(words[0]).read_text(encoding="utf-8"))
        for name in section.split("."):
            given = given[name]
        return str(given.get("name", _USUAL[section]))
    return _USUAL[section]


def _keys(sections: Sequence[str]) -> _Found:
    """The keys of a section, explained; a section that can be set key by key ends in a dot."""
    if list(sections) == ["arguments"]:
        yield from ((f"arguments.{name}.", "arguments of this entry point") for name in _ENTRY_POINTS)
        return
    for key in find_key(".".join(sections)).keys if sections else run_keys():
        is_section = key.keys or any(isinstance(one, inspect.DictType) for one in options_of(key.kind))
        yield f"{key.name}{'.' if is_section else '='}", key.about


def _values(kind: inspect.Type) -> Iterator[str]:
    """The values of a type that has few."""
    for one in options_of(kind):
        if isinstance(one, inspect.LiteralType):
            yield from map(str, one.values)
        elif isinstance(one, inspect.BoolType):
            yield from ("true", "false")
        elif isinstance(one, inspect.NoneType):
            yield "null"


def _paths(key: str, begun: str) -> list[CompletionItem]:
    found = paths(begun, lambda _path: True)
    return [CompletionItem(f"{key}={item.value}", type=item.type) for item in found]
