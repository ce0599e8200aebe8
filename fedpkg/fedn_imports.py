"""``from fedn import APIClient`` where FEDn is not installed: scripts and notebooks of its users run unchanged."""

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
from fedpkg.log import event

if TYPE_CHECKING:
    from fedpkg.stores.home import Home

logger = logging.getLogger("fedpkg.fedn_imports")
COMPAT = Path(__file__).parent / "runtime" / "compat" / "fedn"  # what packages import of FEDn: helpers and the like


def serve_fedn_imports(
    home: Home | Path | str | None = None, *, clients: int | None = None, data: str | None = None, **changes: Any
) -> None:
    """Have `fedn.APIClient` and `fedn.network.api.client` be `fedpkg.APIClient`, in this process.

    The arguments are those of `APIClient`; they hold for each client that a script makes. A FEDn that is installed
    stays what it is, and a warning says so.
    """
    given = {"home": home, "clients": clients, "data": data, **changes}
    usual = {name: value for name, value in given.items() if value is not None}
    served = type("APIClient", (APIClient,), {"usual": usual, "__doc__": APIClient.__doc__})
    fedn = sys.modules.get("fedn")
    if fedn is None and importlib.util.find_spec("fedn") is None:
        fedn = _load("fedn", COMPAT)
        _load("fedn.network", COMPAT / "network")
    if fedn is None or fedn.__file__ != str(COMPAT / "__init__.py"):
        event(logger, logging.WARNING, "fedn.installed", about="imports of fedn get the FEDn that is installed here")
        return
    api = _module("fedn.network.api")
    client = _module("fedn.network.api.client")
    for module in (fedn, api, client):
        module.APIClient = served  # type: ignore[attr-defined]


def _load(name: str, folder: Path) -> ModuleType:
    """A package of the compatibility modules, imported under its own name; its parent knows it."""
    place = [str(folder)]
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=place)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    _tell_parent(module)
    return module


def _module(name: str) -> ModuleType:
    """A package of which nothing is on disk."""
    module = sys.modules.setdefault(name, ModuleType(name, "FEDn's API client, served by fedpkg."))
    module.__path__ = []
    _tell_parent(module)
    return module


def _tell_parent(module: ModuleType) -> None:
    parent, _, name = module.__name__.rpartition(".")
    if parent:
        setattr(sys.modules[parent], name, module)


def run_script(script: Path, arguments: Sequence[str]) -> None:
    """Run a Python script as ``python script.py …`` would."""
    sys.argv[:] = [str(script), *arguments]
    sys.path.insert(0, str(script.absolute().parent))
    runpy.run_path(str(script), run_name="__main__")
