"""FEDn's logger, which some packages use for their output."""

from __future__ import annotations

import logging
import sys


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]  # Python 3.9 has none
    """Writes to the current ``sys.stderr``, as this module outlives a task in a resident interpreter."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> object:
        return sys.stderr


logger = logging.getLogger("fedn")
logger.setLevel(logging.INFO)
logger.propagate = False
_handler = _Handler()
_handler.setFormatter(logging.Formatter("%(asctime)s [%(levelname)s] %(message)s"))
logger.addHandler(_handler)
