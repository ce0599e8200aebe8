"""When a transform has its turn."""

from __future__ import annotations

from enum import IntEnum


class Stage(IntEnum):
    """In another order the result would not be what a transform's name says."""

    DELTA = 1  # the difference to what was sent to the client
    BOUND = 2  # how far it may go
    NOISE = 3
    CHOOSE = 4  # some of the numbers
    NARROW = 5  # fewer bits for each
    PACK = 6  # the bytes
