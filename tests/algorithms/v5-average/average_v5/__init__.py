"""The mean of a column, in version 5."""

from .central import central_average
from .partial import partial_average

__all__ = ["central_average", "partial_average"]
