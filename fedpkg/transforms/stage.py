"""The order of transforms."""

from __future__ import annotations

from enum import IntEnum


class Stage(IntEnum):
    """The place of a transform in a chain. In another order, transforms would not have the effect of their names."""

    DELTA = 1  # the difference to the model that the client received
    BOUND = 2  # clip the norm
    NOISE = 3
    CHOOSE = 4  # some of the numbers
    NARROW = 5  # fewer bits for each number
    PACK = 6  # compress the bytes
