"""A coordinator that runs the central function of an algorithm: ``python -m _fedpkg_algorithm_central MODULE``.

Its working folder is a copy of the algorithm's. Runs in the interpreter of fedpkg.
"""

from __future__ import annotations

import sys

import _fedpkg_compat  # type: ignore[import-not-found]

if __name__ == "__main__":
    _fedpkg_compat.install()
    _fedpkg_compat.serve_instead(("vantage6",))
    from fedpkg.analytics.central_program import main

    main(sys.argv[1])
