"""``fedpkg run``: a whole federation with one command."""

from __future__ import annotations

from pathlib import Path

import click

from fedpkg.cli.options import Settings, common_options


@click.command("run")
@click.argument("run_yaml", metavar="RUN.yaml", type=click.Path(path_type=Path))
@click.argument("overrides", metavar="[KEY=VALUE]...", nargs=-1)
@common_options
@click.pass_obj
def command(settings: Settings, run_yaml: Path, overrides: tuple[str, ...]) -> None:
    """Run a federation on this machine.

    \b
      fedpkg run examples/digits/run.yaml
      fedpkg run examples/digits/run.yaml rounds=3 arguments.train.lr=0.02

    With --json, every event is a JSON object on a line of its own. Ctrl-C stops; `fedpkg session resume` goes on.
    """
    from fedpkg import assemble
    from fedpkg.cli.progress import follow

    config = assemble.load(run_yaml, overrides).config
    home = settings.open_home(create=True)
    with follow(settings, home, num_rounds=config.rounds) as watch:
        assemble.run(config, home, watch=watch)
