"""``fedpkg exec``: a script that uses FEDn's ``APIClient`` or Scaleout's, without a server."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

import click

from fedpkg.cli.options import Settings, common_options


@click.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("script", metavar="SCRIPT.py", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("arguments", metavar="[ARGUMENT]...", nargs=-1, type=click.UNPROCESSED)
@click.option("--clients", metavar="N", type=click.IntRange(1), help="Number of clients of each session.")
@click.option("--data", metavar="PATTERN", help="Pattern; each match is the data of one client.")
@common_options
@click.pass_context
def command(
    context: click.Context, script: Path, arguments: tuple[str, ...], *, clients: int | None, data: str | None
) -> None:
    """Run a script written for the API client of FEDn or Scaleout.

    \b
      fedpkg exec --data 'data/clients/*' experiment.py --rounds 5

    In the script, `from fedn import APIClient` and `from scaleout import Scaleout` import `fedpkg.APIClient`. The home
    keeps the packages and models that the script sets active, and its sessions. Options of fedpkg come before
    SCRIPT.py, arguments of the script after it. fedpkg waits for the script's sessions when it ends; Ctrl-C stops them.
    """
    from fedpkg.fedn_imports import run_script, serve_fedn_imports
    from fedpkg.session.background import stop, wait

    settings: Settings = context.obj
    serve_fedn_imports(settings.home_path, clients=clients, data=data)
    try:
        run_script(script, arguments)
    except Exception as error:
        shown = error.__traceback__
        while shown is not None and shown.tb_frame.f_code.co_filename != str(script):
            shown = shown.tb_next
        traceback.print_exception(type(error), error, shown, file=sys.stderr)
        context.exit(1)
    except KeyboardInterrupt:
        stop()
        raise
    finally:
        wait()
