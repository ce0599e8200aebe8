"""Makes the published names importable, for tests of an algorithm that run its functions without a node.

from fedpkg.analytics import names

names.serve()
from vantage6.algorithm.tools.mock_client import MockAlgorithmClient
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def serve() -> None:
    """From now on, ``vantage6…`` can be imported in this process. An installed vantage6 takes precedence."""
    folder = str(Path(__file__).resolve().parents[1] / "runtime" / "path")
    if folder not in sys.path:
        sys.path.append(folder)
    importlib.import_module("_fedpkg_compat").install()
