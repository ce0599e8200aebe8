"""``fedpkg strategy``: the strategies and their parts, with their parameters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fedpkg.cli import output
from fedpkg.cli.completing import strategies, strategy_parameters
from fedpkg.cli.options import Settings, common_options
from fedpkg.cli.registered import (
    facts_of,
    facts_of_installed,
    file_option,
    include,
    names_in,
    rows_of_installed,
    show_spec,
    specs_of,
)

if TYPE_CHECKING:
    from fedpkg.registry import Spec

_WHOLE = ("strategy", "aggregator")  # kinds for which attackers and trees are shown


@click.group("strategy")
def command() -> None:
    """Look at the strategies that a run.yaml can name.

    \b
      fedpkg strategy list
      fedpkg strategy show fedadam
    """


@command.command("list")
@file_option
@common_options
@click.pass_obj
def list_strategies(settings: Settings, file: Path | None) -> None:
    """List strategies and the parts that they can be composed of.

    \b
      fedpkg strategy list
    """
    from fedpkg.registry import names_of
    from fedpkg.strategies.registry import STRATEGIES

    specs = _all_specs(file)
    if settings.json:
        output.document([_facts(spec) for spec in specs] + facts_of_installed(STRATEGIES))
        return
    merged: list[list[Spec]] = []  # a strategy and its only part are one row
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
                ("yes" if _folds(twins[0]) else "no") if whole else "",
                twins[0].about,
            ]
        )
    rows += rows_of_installed(STRATEGIES, "strategy", "", "")
    output.table(["name", "can be", "tolerates attackers", "folds in a tree", ""], rows)


@command.command("show")
@click.argument("name", metavar="NAME", shell_complete=strategies)
@click.argument("parameters", metavar="[KEY=VALUE]...", nargs=-1, shell_complete=strategy_parameters)
@file_option
@common_options
@click.pass_obj
def show_strategy(settings: Settings, name: str, parameters: tuple[str, ...], file: Path | None) -> None:
    """Show the equation, paper and parameters of a strategy or a part.

    With parameters, as in a run.yaml, it also checks them, and shows whether that strategy folds in a tree: whether
    combiners can add up its updates in parts.

    \b
      fedpkg strategy show krum
      fedpkg strategy show fedprox aggregator=krum
    """
    from fedpkg.config_shape import Places
    from fedpkg.registry import names_of
    from fedpkg.strategies.registry import STRATEGIES

    specs = [spec for spec in _all_specs(file) if name in names_of([spec])]
    specs = specs or [STRATEGIES.find(STRATEGIES.kinds[0], name, Places("fedpkg strategy show"), ())]
    section = _section(parameters)
    if settings.json:
        output.document([_facts(spec, section) for spec in specs])
        return
    by_words: dict[str | None, list[Spec]] = {}  # one text for a strategy and its part, two for fltrust
    for spec in specs:
        by_words.setdefault(spec.text, []).append(spec)
    for number, twins in enumerate(by_words.values()):
        if number:
            output.result("\n")
        _show(twins, section)


def _show(specs: list[Spec], section: dict[str, Any] | None) -> None:
    spec = specs[0]
    is_whole = spec.kind in _WHOLE
    folds = "yes" if _folds(spec, section) else "no: it needs all updates in one place"
    if section is None and "aggregator" in spec.parameters:
        folds += f"; it depends on the aggregator: fedpkg strategy show {spec.name} aggregator=…"
    show_spec(
        spec,
        [
            ("name", names_in(spec)),
            ("is", " and ".join(f"{each.kind.replace('_', ' ')}" for each in specs)),
            ("equation", spec.equation),
            ("paper", spec.paper),
            ("tolerates attackers", spec.attackers if is_whole else ""),
            ("folds in a tree", folds if is_whole else ""),
            ("defined in", spec.source),
        ],
    )


def _all_specs(file: Path | None) -> list[Spec]:
    """Strategies and their parts, and those that a file registers."""
    from fedpkg.strategies.registry import STRATEGIES
    from fedpkg.transforms.registry import TRANSFORMS

    include(file, STRATEGIES)
    return [*specs_of(STRATEGIES), *specs_of(TRANSFORMS)]


def _facts(spec: Spec, section: dict[str, Any] | None = None) -> dict[str, Any]:
    return {**facts_of(spec), "attackers": spec.attackers, "folds_in_a_tree": _folds(spec, section)}


def _folds(spec: Spec, section: dict[str, Any] | None = None) -> bool:
    from fedpkg.strategies.registry import folds_in_a_tree

    return spec.kind in _WHOLE and folds_in_a_tree(spec, section)


def _section(parameters: Sequence[str]) -> dict[str, Any] | None:
    """The section that ``key.sub=value`` words make. None: there are no words."""
    from fedpkg.config_reading import parse_override

    section: dict[str, Any] = {}
    for keys, value in map(parse_override, parameters):
        at = section
        for key in keys[:-1]:
            at = at.setdefault(key, {})
        at[keys[-1]] = value
    return section or None
