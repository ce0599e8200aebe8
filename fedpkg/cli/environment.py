"""``fedpkg environment``: the Python environments that were made for packages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from fedpkg.cli import output
from fedpkg.cli.options import Settings, common_options


@click.group("environment")
def command() -> None:
    """List, remove and prune the Python environments of packages.

    \b
      fedpkg environment list

    fedpkg makes one when a package requires what the Python that runs fedpkg lacks. All homes share them.
    They lie in the folder FEDPKG_ENVIRONMENTS, by default ~/.cache/fedpkg/environments.
    """


@command.command("list")
@common_options
@click.pass_obj
def list_(settings: Settings) -> None:
    """List the environments.

    \b
      fedpkg environment list
    """
    import time
    from dataclasses import asdict

    from fedpkg.environments.make import environments_folder, list_environments, size_bytes, unfinished, used_at

    root = environments_folder()
    found = [(one, size_bytes(root / one.environment_id), used_at(root, one)) for one in list_environments(root)]
    if settings.json:
        output.document(
            [
                {**asdict(one), "folder": root / one.environment_id, "size_bytes": size, "used_at": used}
                for one, size, used in found
            ]
        )
        return
    rows = [
        [
            one.environment_id[:12],
            one.python,
            str(len(one.installed)),
            output.size(size),
            *(time.strftime("%Y-%m-%d %H:%M", time.localtime(moment)) for moment in (one.created_at, used)),
            one.source,
        ]
        for one, size, used in found
    ]
    output.table(["environment", "python", "distributions", "size", "made", "last used", "for"], rows)
    for name in unfinished(root):
        output.words(f"{name[:12]} is being made, or its making was interrupted")


@command.command()
@click.argument("environments", metavar="[ID]...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All of them.")
@common_options
@click.pass_obj
def remove(settings: Settings, environments: tuple[str, ...], *, every: bool) -> None:
    """Remove environments.

    \b
      fedpkg environment remove 3f2a90c1
      fedpkg environment remove --all

    An ID may be shortened. An environment that a session uses is not removed. A later run that needs it makes it again.
    """
    from fedpkg.environments.make import environments_folder, find_ids, list_environments, unfinished

    if bool(environments) == every:
        raise click.UsageError("give the ids of environments, or --all")
    root = environments_folder()
    ids = find_ids(root, environments)
    if every:
        ids = [one.environment_id for one in list_environments(root)] + unfinished(root)
    _remove(settings, root, ids)


@command.command()
@click.option(
    "--days",
    metavar="N",
    type=click.IntRange(min=0),
    default=30,
    show_default=True,
    help="Keep environments that were used in the last N days.",
)
@common_options
@click.pass_obj
def prune(settings: Settings, *, days: int) -> None:
    """Remove environments that no session has used for some time.

    \b
      fedpkg environment prune
      fedpkg environment prune --days 7

    It also removes the remains of interrupted installations. An environment in which a program runs, or that is being
    made, stays.
    """
    import time

    from fedpkg.environments.make import environments_folder, unused

    root = environments_folder()
    _remove(settings, root, unused(root, time.time() - days * 86400))


def _remove(settings: Settings, root: Path, ids: Sequence[str]) -> None:
    from fedpkg.environments.make import remove_environment, size_bytes

    removed = {name: size_bytes(root / name) for name in ids}
    for name in ids:
        remove_environment(root, name)
    if settings.json:
        output.document([{"environment_id": name, "size_bytes": size} for name, size in removed.items()])
        return
    output.result(f"{len(removed)} environments, {output.size(sum(removed.values()))}, were removed")
