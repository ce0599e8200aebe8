"""The mean of a column: each organisation sends its sum and its count."""

from .central import central_average
from .partial import partial_average

__all__ = ["central_average", "partial_average"]
