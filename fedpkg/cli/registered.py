"""What ``fedpkg strategy``, ``sampler`` and ``data`` show about a spec, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fedpkg.cli import output

if TYPE_CHECKING:
    from fedpkg.registry import Parameter, Part, Registry, Spec


file_option = click.option(
    "--file",
    "file",
    metavar="FILE.py",
    type=click.Path(path_type=Path),
    help="A Python file whose registrations are included.",
)


def include(file: Path | None, *registries: Registry) -> None:
    """Run the file that `file_option` names, if there is one."""
    if file is not None:
        for registry in registries:
            registry.run_file(file.absolute())


def specs_of(registry: Registry) -> list[Spec]:
    """The specs of all kinds."""
    return [spec for kind in registry.kinds for spec in registry.specs(kind)]


def show_names(registry: Registry, specs: Iterable[Spec]) -> None:
    """A table of specs of the registry's first kind, and of the names that installed packages add to it."""
    rows = [[names_in(spec), spec.about] for spec in specs]
    output.table([registry.kinds[0], ""], rows + rows_of_installed(registry))
    output.result()


def rows_of_installed(registry: Registry, *between: str) -> list[list[str]]:
    return [[name, *between, f"installed: {value}"] for name, value in registry.installed().items()]


def facts_of_installed(registry: Registry) -> list[dict[str, Any]]:
    return [{"kind": registry.kinds[0], "name": name, "source": value} for name, value in registry.installed().items()]


def names_in(spec: Spec) -> str:
    return ", ".join((spec.name, *spec.aliases))


def show_options(registry: Registry) -> None:
    show_parameters(f"options of all {registry.kinds[0]}s", registry.options.values())


def facts_of_options(registry: Registry) -> list[dict[str, Any]]:
    return [facts_of_parameter(each) for each in registry.options.values()]


def show_spec(spec: Spec, pairs: Sequence[tuple[str, str]]) -> None:
    """Its documentation, facts, and parameters."""
    output.result(spec.text)
    output.result()
    output.facts([(label, value) for label, value in pairs if value])
    if spec.parameters:
        output.result()
        show_parameters("parameters", spec.parameters.values())


def show_parameters(title: str, parameters: Iterable[Parameter]) -> None:
    output.result(f"{title}:")
    for each in map(facts_of_parameter, parameters):
        default = None if each["required"] else _json(each["default"])
        output.explained(each["name"], each["type"], default, each["about"], indent="  ")


def facts_of(spec: Spec) -> dict[str, Any]:
    return {
        "kind": spec.kind,
        "name": spec.name,
        "aliases": list(spec.aliases),
        "about": spec.about,
        "equation": spec.equation,
        "paper": spec.paper,
        "source": spec.source,
        "parameters": [facts_of_parameter(each) for each in spec.parameters.values()],
    }


def facts_of_parameter(parameter: Parameter) -> dict[str, Any]:
    from fedpkg.config_shape import describe

    return {
        "name": parameter.name,
        "type": _part(parameter.part) if parameter.part else describe(parameter.type),
        "required": parameter.is_required,
        "default": None if parameter.is_required else parameter.default,
        "about": parameter.about,
    }


def _part(part: Part) -> str:
    kind = part.kind.replace("_", " ")
    return f"a list of {kind}s" if part.many else f"the name of {'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
