"""Lets the ClientApp of a message app answer one message: see ``fedpkg/apps/client_program.py``.

    python -m _fedpkg_client_app MODULE:OBJECT IN OUT

Runs inside a task's interpreter: the standard library and NumPy, and of fedpkg what `_fedpkg_compat` serves.
"""

from __future__ import annotations

import sys

import _fedpkg_compat  # type: ignore[import-not-found]

if __name__ == "__main__":
    _fedpkg_compat.serve_apps()
    from fedpkg.apps.client_program import main

    main(sys.argv[1:])
