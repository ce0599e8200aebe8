"""What ``fedpkg strategy``, ``sampler`` and ``data`` show about a spec, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fedpkg.cli import output

if TYPE_CHECKING:
    from fedpkg.registry import Parameter, Part, Spec


file_option = click.option(
    "--file",
    "file",
    metavar="FILE.py",
    type=click.Path(path_type=Path),
    help="A Python file whose registrations are included.",
)


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
