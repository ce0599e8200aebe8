"""The names ``coordinator`` and ``server_functions`` in a run.yaml.

The strategy itself is apart: a list of strategies loads no PyTorch.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpkg.registry import Positive
from fedpkg.strategies.registry import register_strategy

if TYPE_CHECKING:
    from fedpkg.coordinators.strategy import Coordinator


@register_strategy("coordinator", equation="w <- what a process of your own commits")
def coordinator(
    command: str,
    folder: str,
    parameters: dict[str, Any] | None = None,
    timeout_s: Positive = 600.0,
    has_model: bool = True,
) -> Coordinator:
    """A program of your own, which asks clients and says the next model (docs/how-to/coordinators.md)."""
    if not Path(folder).is_dir():
        raise ValueError(f"folder: there is no folder {folder}")
    from fedpkg.coordinators.strategy import Coordinator

    return Coordinator(command, folder, parameters or {}, timeout_s, has_model)


@register_strategy("server_functions", equation="w <- what ServerFunctions.aggregate returns")
def server_functions(server_functions: str, timeout_s: Positive = 600.0) -> Coordinator:
    """FEDn's server functions: a file whose class ServerFunctions chooses, configures and aggregates."""
    path = Path(server_functions)
    if not path.is_file():
        raise ValueError(f"server_functions: there is no file {server_functions}")
    from fedpkg.coordinators.strategy import Coordinator

    command = f"python -m _fedpkg_server_functions {shlex.quote(path.name)}"
    return Coordinator(command, server_functions, {}, timeout_s)
