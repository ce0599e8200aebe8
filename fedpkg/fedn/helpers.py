"""FEDn's helpers, each of which reads and writes one form of model file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from fedpkg.config import BareHelper, NpzHelper
from fedpkg.formats.base import Suffix

HELPERS: tuple[str, ...] = get_args(NpzHelper) + get_args(BareHelper)
# The suffixes of the helpers whose files are one bare array; files of the others say themselves what they are.
BARE_SUFFIXES: Mapping[str, Suffix] = {"binaryhelper": ".f64", "androidhelper": ".f32", "numpyarrayhelper": ".txt"}
