"""A coordinator that runs the ServerApp of a message app: ``python -m _fedpkg_server_app MODULE:OBJECT``.

Its working folder is a copy of the app's. Runs in the interpreter of fedpkg.
"""

from __future__ import annotations

import sys

import _fedpkg_compat  # type: ignore[import-not-found]


def main() -> None:
    _fedpkg_compat.serve_apps()
    from fedpkg.apps.server_program import run

    run(sys.argv[1])


if __name__ == "__main__":
    main()
