"""``fedpkg sampler``: the samplers, which choose the clients of a round, with their parameters."""

from __future__ import annotations

from pathlib import Path

import click

from fedpkg.cli import output
from fedpkg.cli.completing import samplers
from fedpkg.cli.options import Settings, common_options
from fedpkg.cli.registered import facts_of, facts_of_parameter, file_option, show_parameters, show_spec


@click.group("sampler")
def command() -> None:
    """Look at the samplers that a run.yaml can name.

    \b
      fedpkg sampler list
      fedpkg sampler show power_of_choice
    """


@command.command("list")
@file_option
@common_options
@click.pass_obj
def list_samplers(settings: Settings, file: Path | None) -> None:
    """List samplers, and the options that all samplers have.

    \b
      fedpkg sampler list
    """
    from fedpkg.samplers.registry import OPTIONS, SAMPLERS

    if file is not None:
        SAMPLERS.run_file(file.absolute())
    specs, installed = list(SAMPLERS.specs("sampler")), SAMPLERS.installed()
    if settings.json:
        others = [{"kind": "sampler", "name": name, "source": value} for name, value in installed.items()]
        output.document([facts_of(spec) for spec in specs] + others)
        return
    rows = [[", ".join((spec.name, *spec.aliases)), spec.about] for spec in specs]
    output.table(["sampler", ""], rows + [[name, f"installed: {value}"] for name, value in installed.items()])
    output.result()
    show_parameters("options of all samplers", OPTIONS.values())


@command.command("show")
@click.argument("name", metavar="NAME", shell_complete=samplers)
@file_option
@common_options
@click.pass_obj
def show_sampler(settings: Settings, name: str, file: Path | None) -> None:
    """Show the equation, paper and parameters of a sampler.

    \b
      fedpkg sampler show power_of_choice
    """
    from fedpkg.config_shape import Places
    from fedpkg.samplers.registry import OPTIONS, SAMPLERS

    if file is not None:
        SAMPLERS.run_file(file.absolute())
    spec = SAMPLERS.find("sampler", name, Places("fedpkg sampler show"), ())
    if settings.json:
        output.document({**facts_of(spec), "options": [facts_of_parameter(each) for each in OPTIONS.values()]})
        return
    names = ", ".join((spec.name, *spec.aliases))
    show_spec(spec, [("name", names), ("equation", spec.equation), ("paper", spec.paper), ("defined in", spec.source)])
    output.result()
    show_parameters("options of all samplers", OPTIONS.values())
