"""Which Python runs a package: the one that runs fedpkg, one of an environment made for it, or the first on PATH."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from fedpkg.environments.interpreter import find_interpreter, lacks
from fedpkg.environments.make import environments_folder, have_environment
from fedpkg.environments.wanted import read_wanted
from fedpkg.log import event

logger = logging.getLogger("fedpkg.environments")


def choose_python(
    folder: Path,
    choice: Literal["auto", "current", "none"],
    *,
    package: str,
    python_env: str | None = None,
    scripts: Sequence[str] = (),
    served: Sequence[str] = (),
    only_wheels: bool = False,
    check: Callable[[], None] = lambda: None,
) -> Path | None:
    """The interpreter for the package in ``folder``, called ``package`` in messages; None: the first one on PATH.

    With ``auto``, an environment is found or made if the interpreter that runs fedpkg lacks some of the requirements;
    with ``current``, a warning lists what is missing. ``served``: see `read_wanted`. ``only_wheels``: nothing is built,
    as a build runs code. ``check`` is called repeatedly while an environment is made; an exception that it raises stops
    that.

    Raises:
        SpecError: a file with the package's requirements is invalid.
        EnvironmentFailed: the requirements cannot be satisfied.
    """
    if choice == "none":
        return None
    wanted = read_wanted(folder, python_env=python_env, scripts=scripts, served=served)
    missing = [] if wanted is None else lacks(wanted)
    if wanted is None or not missing:
        return Path(sys.executable)
    if choice == "current":
        about = (
            f"package {package} requires {', '.join(missing)} ({wanted.source}), which this Python does not have; "
            "--env auto makes an environment that has them"
        )
        event(logger, logging.WARNING, "environment.missing", about=about)
        return Path(sys.executable)
    event(logger, logging.DEBUG, "environment.wanted", package=package, missing=", ".join(missing))
    interpreter = find_interpreter(wanted.python, package=package)
    return have_environment(
        wanted, interpreter, environments_folder(), package=package, only_wheels=only_wheels, check=check
    )
