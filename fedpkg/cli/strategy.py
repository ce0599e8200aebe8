"""``fedpkg strategy``: what there is to aggregate with, and each one's parameters."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fedpkg.cli import output
from fedpkg.cli.options import Settings, common_options

if TYPE_CHECKING:
    from fedpkg.registry import Part, Spec

_WHOLE = ("strategy", "aggregator")  # kinds of which attackers and trees are to be told
_FILE = click.option(
    "--file", "file", metavar="FILE.py", type=click.Path(path_type=Path), help="Also what this file registers."
)


@click.group("strategy")
def command() -> None:
    """Look at the strategies that a run.yaml can name.

    \b
      fedpkg strategy list
      fedpkg strategy show fedadam
    """


@command.command("list")
@_FILE
@common_options
@click.pass_obj
def list_strategies(settings: Settings, file: Path | None) -> None:
    """List strategies, and the parts they can be composed of.

    \b
      fedpkg strategy list
    """
    from fedpkg.registry import names_of
    from fedpkg.strategies.registry import STRATEGIES

    specs = _all_specs(file)
    installed = STRATEGIES.installed()
    if settings.json:
        output.document(
            [_facts(spec) for spec in specs]
            + [{"kind": "strategy", "name": name, "source": value} for name, value in installed.items()]
        )
        return
    merged: list[list[Spec]] = []  # a strategy and the part that it consists of
    for spec in specs:
        twins = next((each for each in merged if names_of([spec]).keys() & names_of(each).keys()), None)
        if twins is None:
            merged.append([spec])
        else:
            twins.append(spec)
    rows = []
    for twins in merged:
        whole = twins[0].kind in _WHOLE
        rows.append(
            [
                ", ".join(names_of(twins)),
                ", ".join(spec.kind.replace("_", " ") for spec in twins),
                twins[0].attackers if whole else "",
                ("yes" if twins[0].folds else "no") if whole else "",
                twins[0].about,
            ]
        )
    rows += [[name, "strategy", "", "", f"installed: {value}"] for name, value in installed.items()]
    output.table(["name", "can be", "stands attackers", "folds in a tree", ""], rows)


@command.command("show")
@click.argument("name", metavar="NAME")
@_FILE
@common_options
@click.pass_obj
def show_strategy(settings: Settings, name: str, file: Path | None) -> None:
    """Show its equation, paper, and parameters.

    \b
      fedpkg strategy show krum
    """
    from fedpkg.config_shape import Places
    from fedpkg.registry import names_of
    from fedpkg.strategies.registry import STRATEGIES

    specs = [spec for spec in _all_specs(file) if name in names_of([spec])]
    specs = specs or [STRATEGIES.find(STRATEGIES.kinds[0], name, Places("fedpkg strategy show"), ())]
    if settings.json:
        output.document([_facts(spec) for spec in specs])
        return
    spec = specs[0]
    output.result(inspect.getdoc(spec.make) or "")
    output.result()
    is_whole = spec.kind in _WHOLE
    pairs = [
        ("name", ", ".join((spec.name, *spec.aliases))),
        ("is", " and ".join(f"{each.kind.replace('_', ' ')}" for each in specs)),
        ("equation", spec.equation),
        ("paper", spec.paper),
        ("stands attackers", spec.attackers if is_whole else ""),
        ("folds in a tree", ("yes" if spec.folds else "no: it needs all updates in one place") if is_whole else ""),
        ("from", spec.source),
    ]
    output.facts([(label, value) for label, value in pairs if value])
    if spec.parameters:
        output.result()
        rows = [
            [
                parameter["name"],
                parameter["type"],
                "must be given" if parameter["required"] else _json(parameter["default"]),
            ]
            for parameter in _facts(spec)["parameters"]
        ]
        output.table(["parameter", "is", "default"], rows)


def _all_specs(file: Path | None) -> list[Spec]:
    """Strategies and their parts, and what a file registers."""
    from fedpkg.strategies.registry import STRATEGIES
    from fedpkg.transforms.registry import TRANSFORMS

    if file is not None:
        STRATEGIES.run_file(file.absolute())
    return [spec for registry in (STRATEGIES, TRANSFORMS) for kind in registry.kinds for spec in registry.specs(kind)]


def _facts(spec: Spec) -> dict[str, Any]:
    from fedpkg.config_shape import describe

    return {
        "kind": spec.kind,
        "name": spec.name,
        "aliases": list(spec.aliases),
        "about": spec.about,
        "equation": spec.equation,
        "paper": spec.paper,
        "attackers": spec.attackers,
        "folds_in_a_tree": spec.folds,
        "source": spec.source,
        "parameters": [
            {
                "name": each.name,
                "type": _part(each.part) if each.part else describe(each.type),
                "required": each.is_required,
                "default": None if each.is_required else each.default,
            }
            for each in spec.parameters.values()
        ],
    }


def _part(part: Part) -> str:
    kind = part.kind.replace("_", " ")
    return f"a list of {kind}s, by name" if part.many else f"the name of one: {kind}"


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
