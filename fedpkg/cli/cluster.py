"""``fedpkg cluster``: trees of combiners, before a run and of a session."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedpkg.cli import output
from fedpkg.cli.completing import overrides
from fedpkg.cli.options import Settings, common_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedpkg.config import RunConfig
    from fedpkg.topology.telling import Told


@click.group("cluster")
def command() -> None:
    """Look at the tree of combiners of a run.yaml or a session.

    \b
      fedpkg cluster tree examples/clusters/run.yaml
      fedpkg cluster check examples/clusters/run.yaml
    """


@command.command()
@click.argument("ref", metavar="RUN.yaml|SESSION")
@click.argument("changes", metavar="[KEY=VALUE]...", nargs=-1, shell_complete=overrides)
@common_options
@click.pass_obj
def tree(settings: Settings, ref: str, changes: tuple[str, ...]) -> None:
    """Show the combiners of a run.yaml or a session.

    \b
      fedpkg cluster tree run.yaml topology.fanout=[2,3]
      fedpkg cluster tree digits
    """
    found = _told(settings, ref, changes)
    if settings.json:
        output.document([asdict(one) for one in found])
        return
    from fedpkg.topology.telling import some_of

    columns = ["combiner", "strategy", "rounds", "required", "clients", "which"]
    rows = [
        [one.indented, one.strategy, str(one.rounds), str(one.required), str(one.num_clients), some_of(one.clients)]
        for one in found
    ]
    output.table(columns, rows)


@command.command()
@click.argument("run_yaml", metavar="RUN.yaml")
@click.argument("changes", metavar="[KEY=VALUE]...", nargs=-1, shell_complete=overrides)
@common_options
@click.pass_obj
def check(settings: Settings, run_yaml: str, changes: tuple[str, ...]) -> None:
    """Check the tree of a run.yaml.

    Every client must have one place, and every strategy one where it can be.

    \b
      fedpkg cluster check run.yaml
    """
    found = _told(settings, run_yaml, changes)
    levels = 1 + max(one.depth for one in found)
    facts = {"combiners": len(found) - 1, "levels": levels, "clients": found[0].num_clients}
    if settings.json:
        output.document(facts)
        return
    output.result(
        f"{run_yaml}: {facts['clients']} clients below {facts['combiners']} combiners and the root, on {levels} levels"
    )


def _told(settings: Settings, ref: str, changes: tuple[str, ...]) -> Sequence[Told]:
    from fedpkg.config_reading import config_from_json
    from fedpkg.data.clients import client_names
    from fedpkg.errors import ConfigError
    from fedpkg.session.configuration import load
    from fedpkg.session.record import find_session
    from fedpkg.topology.building import tree_of
    from fedpkg.topology.telling import told

    config: RunConfig
    if changes or Path(ref).suffix in (".yaml", ".yml") or Path(ref).is_file():
        config = load(Path(ref), changes).config
        ids = client_names(config.clients)
    else:
        with settings.reading() as (_, store):
            session = find_session(store, ref)
            config = config_from_json(session.config)
            ids = [client.client_id for client in store.list_clients(session.session_id)]
    if (found := tree_of(config, ids)) is None:
        raise ConfigError(
            f"{ref} has no tree of combiners: the controller combines all updates",
            hint="describe one in the section topology of a run.yaml (fedpkg config explain topology)",
            key="topology",
        )
    return told(found.root)
