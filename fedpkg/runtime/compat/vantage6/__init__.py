"""The modules of federated algorithms under the names of their original, where that is not installed.

Each module below ``vantage6`` is made from a table; its names are those of ``fedpkg.analytics``. A name that is not
there raises an ImportError that lists those that are.

Runs inside a task's interpreter: standard library only.
"""

from __future__ import annotations

from _fedpkg_names import Library  # type: ignore[import-not-found]

from vantage6 import _algorithm, _tools  # type: ignore[import-not-found]

MODULES = {**_algorithm.MODULES, **_tools.MODULES}
REASONS = {**_algorithm.REASONS}

__version__ = "fedpkg"
__getattr__ = Library(__name__, MODULES, REASONS).look_up
