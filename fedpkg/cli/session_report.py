"""``fedpkg session report`` and ``export``: a session as one page, and as a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from fedpkg.cli import output
from fedpkg.cli.completing import sessions
from fedpkg.cli.options import Settings, common_options
from fedpkg.session.record import find_session, running_sessions, status_of

if TYPE_CHECKING:
    from fedpkg.reporting.report import Facts
    from fedpkg.stores.base import SessionRow
    from fedpkg.stores.home import Home
    from fedpkg.stores.sql import StateStore


@click.command()
@click.argument("session_ref", metavar="[SESSION]", required=False, shell_complete=sessions)
@click.option(
    "-o",
    "--output",
    "target",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="File to write.  [default: SESSION.html]",
)
@common_options
@click.pass_obj
def report(settings: Settings, session_ref: str | None, target: Path | None) -> None:
    """Write a report of a session as one HTML page.

    It has the configuration, curves, failures, costs, the partition of the data and the models. The page loads nothing
    else and runs no script, so it can be sent, archived or printed. A running session gets a report of its rounds so
    far.

    \b
      fedpkg session report
      fedpkg session report digits -o report.html
    """
    from fedpkg.pictures.files import write_file
    from fedpkg.reporting.report import report_page

    with settings.reading() as (home, store):
        session = find_session(store, session_ref)
        facts = _facts(home, store, session)
    target = target or Path(f"{session.session_id}.html")
    page = report_page(facts).encode()
    write_file(target, page)
    if settings.json:
        output.document({"session_id": session.session_id, "file": str(target), "size_bytes": len(page)})
    else:
        output.result(f"{output.near(target)}  ({output.size(len(page))})")


def _facts(home: Home, store: StateStore, session: SessionRow) -> Facts:
    from fedpkg.reporting.report import facts_of

    return facts_of(home, store, session, status_of(session, running_sessions(home)))


@click.command()
@click.argument("target", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("session_ref", metavar="[SESSION]", required=False, shell_complete=sessions)
@click.option(
    "--models",
    type=click.Choice(["all", "last", "none"]),
    default="all",
    show_default=True,
    help="Which of the kept models to copy.",
)
@common_options
@click.pass_obj
def export(settings: Settings, target: Path, session_ref: str | None, models: Literal["all", "last", "none"]) -> None:
    """Write a session to a new folder of plain files.

    DIR gets the configuration, versions, git commit, metrics, logs, models, the report, and files that a ServerApp has
    written. Values of the configuration
    whose keys name tokens, passwords or keys are hidden. The uncommitted changes of the repository and the clients'
    logs are copied as they are: look at them before you publish the folder.

    \b
      fedpkg session export digits-results
      fedpkg session export digits-results digits --models last
    """
    from fedpkg.reporting.export import export_session

    with settings.reading() as (home, store):
        session = find_session(store, session_ref)
        names = export_session(home, store, _facts(home, store, session), target, models=models)
    if settings.json:
        output.document({"session_id": session.session_id, "folder": str(target), "content": names})
    else:
        output.result(f"{output.near(target)}/  {'  '.join(names)}")
