"""``fedpkg experiment``: runs whose configuration is composed of groups."""

from __future__ import annotations

from pathlib import Path

import click

from fedpkg.cli.completing import experiment_words
from fedpkg.cli.experiment_results import COMMANDS as RESULTS
from fedpkg.cli.experiment_sweeps import COMMANDS
from fedpkg.cli.options import Settings, baseline_option, common_options, search_path_option


@click.group("experiment")
def command() -> None:
    """Run experiments, and sweeps of them.

    An experiment is a folder in which groups of options are composed to a configuration.

    \b
      fedpkg experiment run examples/experiments method=scaffold
      fedpkg experiment sweep examples/experiments method=fedavg,scaffold 'seed=range(3)'
    """


for _command in (*COMMANDS, *RESULTS):
    command.add_command(_command)


@command.command()
@click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path), shell_complete=experiment_words)
@click.argument("overrides", metavar="[KEY=VALUE]...", nargs=-1, shell_complete=experiment_words)
@search_path_option
@baseline_option
@common_options
@click.pass_obj
def run(
    settings: Settings,
    folder: Path,
    overrides: tuple[str, ...],
    search_path: tuple[Path, ...],
    baselines: tuple[str, ...],
) -> None:
    """Compose an experiment and run it once.

    FOLDER has an experiment.yaml with a `defaults:` list, and a folder for each group of options. KEY=VALUE follows
    hydra's grammar: `method=scaffold` chooses an option of a group, `rounds=3` sets a key, `lr=0.1` a parameter that
    the experiment declares in `params:`, `+key=1` adds a key, `++key=1` sets or adds it, and `~key` removes it.

    \b
      fedpkg experiment run examples/experiments
      fedpkg experiment run examples/experiments method=scaffold lr=0.05
    """
    from fedpkg.cli.run import run_configuration
    from fedpkg.experiments.composing import compose

    composed = compose(folder, overrides, search_path=search_path)
    run_configuration(settings, composed, settings.open_home(create=True), baselines, source=folder)
