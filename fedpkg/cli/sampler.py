"""``fedpkg sampler``: the samplers, which choose the clients of a round, with their parameters."""

from __future__ import annotations

from pathlib import Path

import click

from fedpkg.cli import output
from fedpkg.cli.completing import samplers
from fedpkg.cli.options import Settings, common_options
from fedpkg.cli.registered import (
    facts_of,
    facts_of_installed,
    facts_of_options,
    file_option,
    include,
    names_in,
    show_names,
    show_options,
    show_spec,
    specs_of,
)


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
    from fedpkg.samplers.registry import SAMPLERS

    include(file, SAMPLERS)
    specs = specs_of(SAMPLERS)
    if settings.json:
        output.document([facts_of(spec) for spec in specs] + facts_of_installed(SAMPLERS))
        return
    show_names(SAMPLERS, specs)
    show_options(SAMPLERS)


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
    from fedpkg.samplers.registry import SAMPLERS

    include(file, SAMPLERS)
    spec = SAMPLERS.find("sampler", name, Places("fedpkg sampler show"), ())
    if settings.json:
        output.document({**facts_of(spec), "options": facts_of_options(SAMPLERS)})
        return
    facts = [("name", names_in(spec)), ("equation", spec.equation), ("paper", spec.paper), ("defined in", spec.source)]
    show_spec(spec, facts)
    output.result()
    show_options(SAMPLERS)
