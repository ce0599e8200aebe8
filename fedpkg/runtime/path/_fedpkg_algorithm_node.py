"""Calls a function of an algorithm with the data of one node: see ``fedpkg/analytics/node_program.py``.

    python -m _fedpkg_algorithm_node MODULE IN OUT

Runs inside a task's interpreter: the standard library and NumPy, and of fedpkg what `_fedpkg_compat` serves. This
process keeps the node's policy, so it imports nothing from the working folder, which is the algorithm's:
`sitecustomize` has imported this module before Python put that folder on the path.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

if __name__ == "__main__":
    for _one in list(sys.path):
        with suppress(OSError):  # what does not exist is not the working folder
            if not _one or os.path.samefile(_one, os.curdir):
                sys.path.remove(_one)

import _fedpkg_compat  # type: ignore[import-not-found]

if __name__ == "__main__":
    _fedpkg_compat.install()
    _fedpkg_compat.serve_instead(("vantage6",))
    from fedpkg.analytics.node_program import main

    main(sys.argv[1:])
