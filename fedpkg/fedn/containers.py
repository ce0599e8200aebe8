"""What packages expect because FEDn's clients lived in containers of its own."""

from __future__ import annotations

import platform
import re
from collections.abc import MutableMapping
from pathlib import Path

# The interpreter of these containers. Packages up to 0.8 call it by this path, which few machines have.
_PYTHON = re.compile(r"""(?<![^\s"';&|(])/venv/bin/(?=python[\d.]*(?:[\s"']|$))""")


def without_container(command: str) -> str:
    """``/venv/bin/python x.py`` → ``python x.py``, where there is no such file: the package's own interpreter."""
    return command if Path("/venv/bin").is_dir() else _PYTHON.sub("", command)


def name_the_host(environ: MutableMapping[str, str]) -> None:
    """Set HOSTNAME, which a container always has."""
    environ.setdefault("HOSTNAME", platform.node())
