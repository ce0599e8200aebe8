"""What goes by a name in a run.yaml, told: for people, and for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fedpkg.cli import output

if TYPE_CHECKING:
    from fedpkg.registry import Part, Spec


file_option = click.option(
    "--file", "file", metavar="FILE.py", type=click.Path(path_type=Path), help="Also what this file registers."
)


def show_spec(spec: Spec, pairs: Sequence[tuple[str, str]]) -> None:
    """Its documentation, facts, and parameters."""
    output.result(spec.text)
    output.result()
    output.facts([(label, value) for label, value in pairs if value])
    if spec.parameters:
        output.result()
        rows = [
            [
                *(each["name"], each["type"], "must be given" if each["required"] else _json(each["default"])),
                each["about"],
            ]
            for each in facts_of(spec)["parameters"]
        ]
        output.table(["parameter", "is", "default", ""], rows)


def facts_of(spec: Spec) -> dict[str, Any]:
    from fedpkg.config_shape import describe

    return {
        "kind": spec.kind,
        "name": spec.name,
        "aliases": list(spec.aliases),
        "about": spec.about,
        "equation": spec.equation,
        "paper": spec.paper,
        "source": spec.source,
        "parameters": [
            {
                "name": each.name,
                "type": _part(each.part) if each.part else describe(each.type),
                "required": each.is_required,
                "default": None if each.is_required else each.default,
                "about": each.about,
            }
            for each in spec.parameters.values()
        ],
    }


def _part(part: Part) -> str:
    kind = part.kind.replace("_", " ")
    return f"a list of {kind}s, by name" if part.many else f"the name of one: {kind}"


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
