"""``fedpkg dashboard``: a page in the browser about the sessions of a home."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

import click

from fedpkg.cli import output
from fedpkg.cli.options import Settings, common_options
from fedpkg.errors import ConfigError

_EXTRA = "dashboard"
_NEEDED = ("aiohttp", "jinja2")


@click.command("dashboard")
@click.option("--host", default="127.0.0.1", metavar="ADDRESS", show_default=True, help="Address of this machine.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, metavar="N", help="Port of the server.  [default: a free one]"
)
@click.option("--read-only", is_flag=True, help="Refuse all actions: sessions cannot be stopped or resumed there.")
@click.option("--no-open", is_flag=True, help="Do not open a browser.")
@common_options
@click.pass_obj
def command(settings: Settings, host: str, port: int, read_only: bool, no_open: bool) -> None:
    """Show the sessions of this home in the browser.

    \b
      fedpkg dashboard
      fedpkg dashboard --port 8200 --no-open       # on a server, seen through ssh -L 8200:127.0.0.1:8200
      fedpkg dashboard --read-only

    The printed address has a token, and works until the command ends (Ctrl-C). Sessions may run meanwhile.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        hint = f'pip install "fedpkg[{_EXTRA}]"'
        raise ConfigError(f"the dashboard needs {' and '.join(missing)}, which cannot be imported", hint=hint)
    from fedpkg.dashboard.tokens import Access, is_loopback, listening

    if not is_loopback(host):
        hint = f"keep 127.0.0.1, and on the other machine run: {_forwarding(port or 8200)}"
        raise ConfigError(f"the dashboard serves only this machine, and {host} can be reached from others", hint=hint)
    home = settings.open_home()
    access = Access(operator=None) if read_only else Access()
    at = listening(host, port)
    name = f"[{host}]" if ":" in host else host
    base = f"http://{name}:{at.getsockname()[1]}/"
    view = f"{base}?token={access.viewer}"
    act = None if access.operator is None else f"{base}?token={access.operator}"
    if settings.json:
        output.event_line(view=view, act=act, home=str(home.root))
    else:
        output.result(f"to read       {view}")
        if act is not None:
            output.result(f"to stop and resume sessions, too\n              {act}")
        output.words(_remarks(at.getsockname()[1]))
    if not no_open and _has_browser():
        import webbrowser

        # Other users see the arguments of a browser's process, so this address works once.
        webbrowser.open(f"{base}?token={access.ticket('viewer' if act is None else 'operator')}")
    from fedpkg.dashboard.server import serve  # takes half a second; browsers that connect meanwhile wait for it

    serve(home.root, access, at)
    output.words("The dashboard has ended.")


def _remarks(port: int) -> str:
    if "SSH_CONNECTION" not in os.environ:
        return "Ctrl-C ends it."
    return f"Ctrl-C ends it. On your machine: {_forwarding(port)}"


def _forwarding(port: int) -> str:
    return f"ssh -L {port}:127.0.0.1:{port} {os.uname().nodename}"


def _has_browser() -> bool:
    """Whether a browser of this desktop can be opened; one in the terminal would hide the address."""
    has_screen = sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return has_screen and sys.stdout.isatty() and "SSH_CONNECTION" not in os.environ
