"""Expectations of packages that come from the containers of FEDn's clients."""

from __future__ import annotations

import platform
import re
from collections.abc import MutableMapping
from pathlib import Path

OF_CONTAINER = "/venv/bin/"  # the interpreter of these containers; packages up to 0.8 run it by this path
_PYTHON = re.compile(
    r"""(?<![^\s"';&|(])(?P<folder>[./\w][\w./@+-]*/bin/|/bin/)(?=(?P<python>python[\d.]*)(?:[\s"']|$))""", re.ASCII
)


def absent_interpreters(command: str, folder: Path) -> list[str]:
    """Folders of virtual environments whose Python a command runs, but which do not exist.

    Such a path comes from the author's machine, or from a container. A relative one starts at ``folder``, that of
    fedn.yaml; packages are distributed without the virtual environment in it.
    """
    found = _PYTHON.finditer(command)
    return [one["folder"] for one in found if not (folder / one["folder"] / one["python"]).exists()]


def with_own_python(command: str, folder: Path) -> str:
    """``/venv/bin/python x.py`` → ``python x.py``, the package's own interpreter, if that file does not exist."""
    absent = absent_interpreters(command, folder)
    return _PYTHON.sub(lambda found: "" if found["folder"] in absent else found[0], command)


def name_the_host(environ: MutableMapping[str, str]) -> None:
    """Set HOSTNAME, which is always set in a container."""
    environ.setdefault("HOSTNAME", platform.node())
