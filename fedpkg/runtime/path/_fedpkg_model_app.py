"""Gives the ClientApp of a message app a model file: see ``fedpkg/apps/model_program.py``.

    python -m _fedpkg_model_app train | evaluate MODULE:OBJECT [KEY=VALUE …] -- IN OUT [--KEY=VALUE …]

Runs inside a task's interpreter: the standard library and NumPy, and of fedpkg what `_fedpkg_compat` serves.
"""

from __future__ import annotations

import sys

import _fedpkg_compat  # type: ignore[import-not-found]

if __name__ == "__main__":
    _fedpkg_compat.serve_apps()
    from fedpkg.apps.model_program import main

    main(sys.argv[1:])
