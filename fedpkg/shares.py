"""How many clients, or tensors, a share such as ``fraction_train: 0.3`` means: one rule for all of them."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Literal, TypeAlias

Rounding: TypeAlias = Literal["nearest", "down", "up"]


def share_of(share: float, total: int, rounding: Rounding = "nearest", *, leeway: float = 1e-9) -> int:
    """The whole number nearest to ``share`` times ``total``, halves up; or the one below, or above.

    The product is that of the decimals as they are written: 0.28 of 25 are 7, although in binary it is a little more.
    What is less than ``leeway`` off a whole number (for ``nearest``, a half) counts as that: a program that divides f
    by n gets f of n again.
    """
    exact, room = (Decimal(repr(float(number))) for number in (share, leeway))
    if rounding == "up":
        return math.ceil(exact * total - room)
    half = Decimal("0.5") if rounding == "nearest" else 0
    return math.floor(exact * total + half + room)
