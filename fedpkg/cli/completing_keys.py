"""What KEY=VALUE of a run.yaml can become when the Tab key is pressed: keys by section, then the values of a key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

import msgspec
from click.shell_completion import CompletionItem

from fedpkg.cli.candidates import beginning, names_of_kind, paths
from fedpkg.config import NAMED_DATASETS, RunConfig, Section
from fedpkg.config_reading import PATHS
from fedpkg.config_shape import Places, describe
from fedpkg.errors import ConfigError
from fedpkg.registry import Parameter, Registry

_Found: TypeAlias = Iterable[tuple[str, str]]
_ENTRY_POINTS = ("all", "train", "validate")  # sections of `arguments`
_USUAL = {"strategy": "pipeline", "sampler": "uniform"}


def of_run(words: Sequence[str], incomplete: str) -> list[CompletionItem]:
    """KEY=VALUE after these words: a RUN.yaml and what is set already."""
    key, equals, begun = incomplete.partition("=")
    section, dot, _ = key.partition(".")
    if section in _USUAL and (dot or equals):
        return _of_registered(section, _named(section, words), incomplete)
    if not equals:
        return beginning(incomplete, _keys(key.split(".")[:-1]))
    if key in PATHS:
        named = [(f"{key}={name}", "") for name in NAMED_DATASETS if key.endswith(".dataset")]
        return beginning(incomplete, named) + _paths(key, begun)
    return beginning(incomplete, [(f"{key}={value}", "") for value in _values(_type_at(key.split(".")))])


def of_strategy(name: str, incomplete: str) -> list[CompletionItem]:
    """KEY=VALUE of a strategy or one of its parts."""
    registry = _registry("strategy")
    return beginning(
        incomplete, _of_parameters(registry, _parameters(registry, name), "", incomplete.partition("=")[0])
    )


def _of_registered(section: str, name: str, incomplete: str) -> list[CompletionItem]:
    """KEY=VALUE of a section whose keys are the parameters of the strategy or sampler that it names."""
    registry, (key, _, begun) = _registry(section), incomplete.partition("=")
    if key == f"{section}.file":
        return _paths(key, begun)
    if key in (section, f"{section}.name"):
        return beginning(incomplete, [(f"{key}={name}", about) for name, about in names_of_kind(registry, section)])
    found = [(f"{section}.name=", f"the name of a {section}"), (f"{section}.file=", "a Python file that registers it")]
    if section == "sampler":
        from fedpkg.samplers.registry import OPTIONS

        found += [(f"sampler.{option}=", "an option of all samplers") for option in OPTIONS]
    return beginning(incomplete, [*found, *_of_parameters(registry, _parameters(registry, name), f"{section}.", key)])


def _of_parameters(registry: Registry, parameters: Mapping[str, Parameter], prefix: str, key: str) -> _Found:
    """Every parameter as ``key=``; of the one that is ``key``, its values."""
    for parameter in parameters.values():
        word, part = f"{prefix}{parameter.name}=", parameter.part
        if word != f"{key}=":
            yield word, describe(parameter.type) if part is None else f"the name of a {part.kind.replace('_', ' ')}"
        elif part is None:
            yield from ((f"{word}{value}", "") for value in _values(parameter.type))
        else:
            names = names_of_kind(part.registry or registry, part.kind)
            yield from ((f"{word}[{name}]" if part.many else f"{word}{name}", about) for name, about in names)


def _registry(section: str) -> Registry:
    from fedpkg.samplers.registry import SAMPLERS
    from fedpkg.strategies.registry import STRATEGIES

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
    """The strategy or sampler that the words name, else the RUN.yaml, else the usual one."""
    for word in reversed(words):
        for begin in (f"{section}.name=", f"{section}="):
            if word.startswith(begin):
                return word.removeprefix(begin)
    with suppress(Exception):  # there is no such file, or it is not as a run.yaml should be
        import yaml

        given = yaml.safe_load(Path(words[0]).read_text(encoding="utf-8"))[section]
        return str(given.get("name", "pipeline"))
    return _USUAL[section]


def _keys(sections: Sequence[str]) -> _Found:
    """The keys of a section, with their types; a section that can be set key by key ends in a dot."""
    if list(sections) == ["arguments"]:
        yield from ((f"arguments.{name}.", "arguments of this entry point") for name in _ENTRY_POINTS)
    for kind in _options(_type_at(sections)):
        if _is_section(kind):
            for field in msgspec.structs.fields(kind):
                word = ".".join((*sections, field.name))
                options = list(_options(field.type))
                is_section = any(get_origin(one) is dict or _is_section(one) for one in options)
                yield (f"{word}.", "a section") if is_section else (f"{word}=", describe(field.type))


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def _type_at(keys: Sequence[str]) -> Any:
    """The type of a key of the run.yaml; None where the schema has none."""
    kind: Any = RunConfig
    for key in keys:
        sections = [one for one in _options(kind) if _is_section(one)]
        kind = next(
            (field.type for one in sections for field in msgspec.structs.fields(one) if field.name == key), None
        )
    return kind


def _options(kind: Any) -> Iterator[Any]:
    """The types that a type allows, without their bounds."""
    if get_origin(kind) is Annotated:
        yield from _options(get_args(kind)[0])
    elif get_origin(kind) in (Union, UnionType):
        for one in get_args(kind):
            yield from _options(one)
    else:
        yield kind


def _values(kind: Any) -> Iterator[str]:
    """The values of a type that has few."""
    for one in _options(kind):
        if get_origin(one) is Literal:
            yield from map(str, get_args(one))
        elif one is bool:
            yield from ("true", "false")
        elif one is NoneType:
            yield "null"


def _paths(key: str, begun: str) -> list[CompletionItem]:
    found = paths(begun, lambda _path: True)
    return [CompletionItem(f"{key}={item.value}", type=item.type) for item in found]
