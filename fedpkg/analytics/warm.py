"""Imports what tasks of algorithms would import after they have begun; for interpreters from which tasks are forked."""

from __future__ import annotations

import encodings.cp437  # noqa: F401 - of zip files, which records are
from contextlib import suppress

import numpy.rec  # noqa: F401 - pandas reads CSV into it
import pandas as pd  # noqa: F401

import fedpkg.analytics.databases  # noqa: F401

with suppress(ImportError):  # pandas looks for it when it opens a file
    import zstandard  # noqa: F401
