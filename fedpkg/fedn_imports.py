"""``from fedn import APIClient`` and Scaleout's names without either package installed: scripts run unchanged."""

from __future__ import annotations

import importlib.util
import logging
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fedpkg.api_client import APIClient
from fedpkg.fedn.names import SERVED
from fedpkg.log import event

if TYPE_CHECKING:
    from fedpkg.stores.home import Home

logger = logging.getLogger("fedpkg.fedn_imports")
COMPAT = Path(__file__).parent / "runtime" / "compat"  # parts of FEDn that packages import, such as helpers
# The modules that have the API client, and its names in them.
PLACES = {
    "fedn": ("APIClient",),
    "fedn.network.api.client": ("APIClient",),
    "scaleout": ("Scaleout", "APIClient"),
    "scaleoututil.api.client": ("Scaleout", "APIClient"),
}


def serve_fedn_imports(
    home: Home | Path | str | None = None, *, clients: int | None = None, data: str | None = None, **changes: Any
) -> None:
    """Make `fedn.APIClient`, `scaleout.Scaleout` and their modules refer to `fedpkg.APIClient` in this process.

    The arguments are those of `APIClient`; they apply to each client that a script creates. If FEDn or Scaleout is
    installed, its imports are left alone, and a warning is logged.
    """
    given = {"home": home, "clients": clients, "data": data, **changes}
    usual = {name: value for name, value in given.items() if value is not None}
    served = type("APIClient", (APIClient,), {"usual": usual, "__doc__": APIClient.__doc__})
    installed = {name for name in SERVED if _is_installed(name)}
    for name in sorted(installed):
        about = f"{name} is installed: scripts import the installed package, not fedpkg's replacement"
        event(logger, logging.WARNING, "fedn.installed", about=about)
    for place, names in PLACES.items():
        if place.partition(".")[0] not in installed:
            module = _module(place)
            for name in names:
                setattr(module, name, served)


def _is_installed(name: str) -> bool:
    """Whether another installed package provides the module; a folder without ``__init__.py`` does not count."""
    if (module := sys.modules.get(name)) is not None:
        return not str(module.__file__).startswith(str(COMPAT))
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None


def _module(name: str) -> ModuleType:
    """Import a compatibility module under its own name, after its parents; without a file, make an empty module."""
    parent, _, last = name.rpartition(".")
    above = _module(parent) if parent else None
    if name not in sys.modules:
        folder = COMPAT.joinpath(*name.split("."))
        place = [str(folder)]
        spec = importlib.util.spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=place)
        assert spec is not None and spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        if (folder / "__init__.py").is_file():
            spec.loader.exec_module(module)
    if above is not None:
        setattr(above, last, sys.modules[name])
    return sys.modules[name]


def run_script(script: Path, arguments: Sequence[str]) -> None:
    """Run a Python script in this process as ``python script.py …`` would."""
    sys.argv[:] = [str(script), *arguments]
    sys.path.insert(0, str(script.absolute().parent))
    runpy.run_path(str(script), run_name="__main__")
