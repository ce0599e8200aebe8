"""``fedpkg data``: the partitioners that a run.yaml can name, with their parameters."""

from __future__ import annotations

from pathlib import Path

import click

from fedpkg.cli import output
from fedpkg.cli.completing import data_parts
from fedpkg.cli.data_splits import describe, partition
from fedpkg.cli.options import Settings, common_options
from fedpkg.cli.registered import facts_of, facts_of_parameter, file_option, show_parameters, show_spec


@click.group("data")
def command() -> None:
    """Split datasets among clients; look at splits and partitioners.

    \b
      fedpkg data list
      fedpkg data explain dirichlet
      fedpkg data partition sklearn/digits --by dirichlet alpha=0.3 --clients 10 -o parts
      fedpkg data describe parts
    """


command.add_command(partition)
command.add_command(describe)


@command.command("list")
@file_option
@common_options
@click.pass_obj
def list_parts(settings: Settings, file: Path | None) -> None:
    """List partitioners, and the options that all partitioners have.

    \b
      fedpkg data list
    """
    from fedpkg.data.partitioners.registry import OPTIONS, PARTITIONERS

    if file is not None:
        PARTITIONERS.run_file(file.absolute())
    specs, installed = list(PARTITIONERS.specs("partitioner")), PARTITIONERS.installed()
    if settings.json:
        others = [{"kind": "partitioner", "name": name, "source": value} for name, value in installed.items()]
        output.document([facts_of(spec) for spec in specs] + others)
        return
    rows = [[", ".join((spec.name, *spec.aliases)), spec.about] for spec in specs]
    output.table(["partitioner", ""], rows + [[name, f"installed: {value}"] for name, value in installed.items()])
    output.result()
    show_parameters("options of all partitioners", OPTIONS.values())


@command.command("explain")
@click.argument("name", metavar="NAME", shell_complete=data_parts)
@file_option
@common_options
@click.pass_obj
def explain_part(settings: Settings, name: str, file: Path | None) -> None:
    """Show the equation, paper and parameters of a partitioner.

    \b
      fedpkg data explain dirichlet
    """
    from fedpkg.config_shape import Places
    from fedpkg.data.partitioners.registry import OPTIONS, PARTITIONERS, needs_of_spec

    if file is not None:
        PARTITIONERS.run_file(file.absolute())
    spec = PARTITIONERS.find("partitioner", name, Places("fedpkg data explain"), ())
    if settings.json:
        options = [facts_of_parameter(each) for each in OPTIONS.values()]
        output.document({**facts_of(spec), "needs": needs_of_spec(spec), "options": options})
        return
    names = ", ".join((spec.name, *spec.aliases))
    facts = [("name", names), ("needs", needs_of_spec(spec)), ("equation", spec.equation), ("paper", spec.paper)]
    show_spec(spec, [*facts, ("defined in", spec.source)])
    output.result()
    show_parameters("options of all partitioners", OPTIONS.values())
