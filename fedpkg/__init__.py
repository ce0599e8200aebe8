"""fedpkg: federated learning whose client code is a compute package.

docs/how-to/python.md says how programs and notebooks use it. Importing this module loads neither torch nor numpy: each
name is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedpkg.api_client import APIClient
    from fedpkg.errors import FedpkgError
    from fedpkg.fedn_imports import serve_fedn_imports
    from fedpkg.library import compose, load, prepare, run, sweep
    from fedpkg.samplers import register_sampler
    from fedpkg.session.session import Session
    from fedpkg.strategies import (
        register_aggregator,
        register_schedule,
        register_server_optimiser,
        register_strategy,
    )
    from fedpkg.weights.weights import Weights

__version__ = "0.5.0"

_HOMES = {
    "APIClient": "fedpkg.api_client",
    "FedpkgError": "fedpkg.errors",
    "Session": "fedpkg.session.session",
    "Weights": "fedpkg.weights.weights",
    "compose": "fedpkg.library",
    "load": "fedpkg.library",
    "prepare": "fedpkg.library",
    "register_aggregator": "fedpkg.strategies",
    "register_sampler": "fedpkg.samplers",
    "register_schedule": "fedpkg.strategies",
    "register_server_optimiser": "fedpkg.strategies",
    "register_strategy": "fedpkg.strategies",
    "run": "fedpkg.library",
    "serve_fedn_imports": "fedpkg.fedn_imports",
    "sweep": "fedpkg.library",
}
__all__ = [
    "APIClient",
    "FedpkgError",
    "Session",
    "Weights",
    "compose",
    "load",
    "prepare",
    "register_aggregator",
    "register_sampler",
    "register_schedule",
    "register_server_optimiser",
    "register_strategy",
    "run",
    "serve_fedn_imports",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fedpkg' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
