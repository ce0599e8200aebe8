"""Finds modules that packages and apps import (``fedn``, ``flwr`` …) if they are not installed.

It also finds the modules of fedpkg that entry points import (``SERVED``) everywhere: those of the fedpkg that runs the
task, as they read its task.json and its messages. The rest of fedpkg is available only if it is installed.

Runs inside a task's interpreter: standard library only, imports nothing of fedpkg. The finder asks all other
finders first, at the time of the import: an entry at the end of ``sys.path`` would take precedence over editable
installations, which have their own finders, and over folders that a script adds to the path later.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder

TYPE_CHECKING = False  # type checkers recognise the name, and importing typing takes time
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

NAMES = frozenset(
    ("fedn", "scaleout", "scaleoututil", "docker", "fedpkg", "flwr", "flwr_datasets", "datasets", "vantage6")
)
WHEELS = ("algorithm", "client", "common", "tools")  # folders of vantage6 that its wheels have
OF_FEDN = ("fedn", "scaleout", "scaleoututil")
SERVED = tuple("fedpkg.%s" % name for name in ("client", "records", "apps", "analytics", "partitions", "errors"))
RUNTIME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDER = os.path.join(RUNTIME, "compat")


of_app: list[bool] = []  # not empty: a message app is run, for which there are also datasets
instead: set[str] = set()  # these take precedence over installed libraries of the same names


def serve_instead(names: Sequence[str] = OF_FEDN) -> None:
    """From now on, use these modules even if the library is installed, as its own client would look for a server."""
    instead.update(names)
    found = [sys.modules[name] for name in names if name in sys.modules]
    if all(
        map(_is_ours, found)
    ):  # then their submodules are ours, too. Listing all modules would copy 500 shared pages
        return
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in names and not _is_ours(module):
            del sys.modules[name]


def _is_ours(module: ModuleType) -> bool:
    loader = getattr(getattr(module, "__spec__", None), "loader", None)
    return type(loader).__module__ == "_fedpkg_names" or (getattr(module, "__file__", None) or "").startswith(FOLDER)


def serve_apps() -> None:
    """From now on, find the modules, also ``datasets``: other programs have folders and modules of this name."""
    of_app.append(True)
    install()


def install() -> None:
    """From now on, find the modules."""
    if not any(isinstance(finder, _LastResort) for finder in sys.meta_path):
        sys.meta_path.insert(0, _LastResort())


class _LastResort:
    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name in SERVED:
            return PathFinder.find_spec(name, [os.path.dirname(RUNTIME)])
        if name not in NAMES or (name == "datasets" and not of_app):
            return None
        # An installed flwr_datasets would download what the run configuration names local data for (data.sources).
        has_data = name == "flwr_datasets" and "FEDPKG_DATASETS" in os.environ
        is_vain = name == "docker" and not _has_daemon()
        others = [] if has_data or is_vain or name in instead else list(sys.meta_path)
        for finder in others:
            if finder is not self and hasattr(finder, "find_spec"):
                spec = finder.find_spec(name, path, target)
                # Without a loader it is only a folder of that name, such as one that contains a Dockerfile.
                if spec is not None and (spec.loader is not None or _has_modules(spec)):
                    return spec
        return PathFinder.find_spec(name, [FOLDER])


def _has_daemon() -> bool:
    """Whether an installed ``docker``, which often comes with other libraries, could reach a daemon."""
    return bool(os.environ.get("DOCKER_HOST")) or os.path.exists("/var/run/docker.sock")


def _has_modules(spec: ModuleSpec) -> bool:
    """Whether a folder without ``__init__.py`` has modules: those of an app in ``datasets``, or wheels of vantage6."""
    folders = (spec.submodule_search_locations or ()) if spec.name in ("datasets", "vantage6") else ()
    if spec.name == "vantage6":
        return any(os.path.isdir(os.path.join(folder, name)) for folder in folders for name in WHEELS)
    return any(name.endswith(".py") for folder in folders if os.path.isdir(folder) for name in os.listdir(folder))
