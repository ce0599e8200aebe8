"""Converts a fraction such as ``fraction_train: 0.3`` to a number of clients or tensors, by one rule for all."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Literal, TypeAlias

Rounding: TypeAlias = Literal["nearest", "down", "up"]


def share_of(share: float, total: int, rounding: Rounding = "nearest", *, leeway: float = 1e-9) -> int:
    """The whole number nearest to ``share`` times ``total``, with halves rounded up; or the one below, or above.

    The product is computed with the decimals as written: 0.28 of 25 is 7, although in binary it is slightly more.
    A product within ``leeway`` of a whole number (for ``nearest``, of a half) counts as that number, so that a share
    f / n of n is f.
    """
    exact, room = (Decimal(repr(float(number))) for number in (share, leeway))
    if rounding == "up":
        return math.ceil(exact * total - room)
    half = Decimal("0.5") if rounding == "nearest" else 0
    return math.floor(exact * total + half + room)
