"""Finds modules that packages of FEDn import (``fedn``, ``scaleoututil``, ``docker``) where nobody else provides them.

And ``fedpkg.client``, everywhere: that of the fedpkg that runs the task, whose task.json it reads. The rest of fedpkg
is there only where it is installed.

Runs inside a task's interpreter: standard library only, imports nothing of fedpkg. As a finder it asks everybody else
first, at the time of the import: an entry at the end of ``sys.path`` would win over editable installations, which have
finders of their own, and over what a script puts on the path later.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder

TYPE_CHECKING = False  # type checkers know the name; to import the one of typing takes time
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

NAMES = frozenset(("fedn", "scaleoututil", "docker", "fedpkg"))
CLIENT = "fedpkg.client"
RUNTIME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDER = os.path.join(RUNTIME, "compat")


def install() -> None:
    """From now on the names are found."""
    if not any(isinstance(finder, _LastResort) for finder in sys.meta_path):
        sys.meta_path.insert(0, _LastResort())


class _LastResort:
    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == CLIENT:
            return PathFinder.find_spec(name, [os.path.dirname(RUNTIME)])
        if name not in NAMES:
            return None
        for finder in list(sys.meta_path):
            if finder is not self and hasattr(finder, "find_spec"):
                spec = finder.find_spec(name, path, target)
                # Without a loader it is a mere folder of that name, such as one with a Dockerfile in it.
                if spec is not None and spec.loader is not None:
                    return spec
        return PathFinder.find_spec(name, [FOLDER])
