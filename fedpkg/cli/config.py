"""``fedpkg config``: what a run.yaml comes to."""

from __future__ import annotations

import json
from pathlib import Path

import click

from fedpkg.cli import output
from fedpkg.cli.completing import overrides, run_file
from fedpkg.cli.options import Settings, common_options


@click.group("config")
def command() -> None:
    """Look at a run configuration.

    \b
      fedpkg config show examples/digits/run.yaml
    """


@command.command()
@click.argument("run_yaml", metavar="RUN.yaml", type=click.Path(path_type=Path), shell_complete=run_file)
@click.argument("overrides", metavar="[KEY=VALUE]...", nargs=-1, shell_complete=overrides)
@common_options
@click.pass_obj
def show(settings: Settings, run_yaml: Path, overrides: tuple[str, ...]) -> None:
    """Show every key, its value, and its origin.

    \b
      fedpkg config show examples/digits/run.yaml rounds=3
    """
    from fedpkg.config_reading import render
    from fedpkg.session.configuration import load

    leaves = render(load(run_yaml, overrides))
    if settings.json:
        output.document([{"key": key, "value": value, "origin": origin} for key, value, origin in leaves])
        return
    rows = [
        [key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), origin]
        for key, value, origin in leaves
    ]
    output.table(["key", "value", "from"], rows)
