"""FEDn's logger under the name of its successor."""

from __future__ import annotations

from fedn.common.log_config import logger

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def ScaleoutLogger() -> Any:
    """The logger."""
    return logger


FednLogger = ScaleoutLogger  # between FEDn 0.33 and Scaleout 1.0
