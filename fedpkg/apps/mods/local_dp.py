"""Local differential privacy: each client clips its update and adds noise before it leaves."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fedpkg.apps.message import Message
from fedpkg.apps.mods.updates import Update, factor_to, with_update

if TYPE_CHECKING:
    from collections.abc import Callable

    from fedpkg.apps.context import Context


class LocalDpMod:
    """The Gaussian mechanism on the update of a training message (Dwork and Roth 2014, theorem A.1).

    The noise's standard deviation is ``sensitivity * sqrt(2 ln(1.25 / delta)) / epsilon``. One message spends
    (epsilon, delta); over several rounds they add up. The noise is drawn from NumPy's global generator, which is seeded
    in a session so that it can be repeated; who knows the session's seed can remove the noise.

    Args:
        clipping_norm: The largest norm of an update.
        sensitivity: The largest change of the update by one example: at most the clipping norm, or twice that.
        epsilon: Above 0; the bound is proven up to 1.
        delta: Between 0 and 1.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(self, clipping_norm: float, sensitivity: float, epsilon: float, delta: float) -> None:
        for name, value in (("clipping_norm", clipping_norm), ("sensitivity", sensitivity), ("epsilon", epsilon)):
            if not value > 0 or math.isinf(value):
                raise ValueError(f"LocalDpMod: {name} is {value}; it must be a number above 0")
        if not 0 < delta < 1:
            raise ValueError(f"LocalDpMod: delta is {delta}; it must be between 0 and 1")
        self.clipping_norm = clipping_norm
        self.std = sensitivity * math.sqrt(2 * math.log(1.25 / delta)) / epsilon

    def __call__(self, message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
        return with_update("LocalDpMod", message, context, call_next, self._add_noise)

    def _add_noise(self, update: Update) -> None:
        import numpy as np

        factor = factor_to(self.clipping_norm, update.norm())
        noisy = {}
        for key, (before, after) in update.pairs.items():
            noise = np.random.normal(0.0, self.std, before.shape)
            noisy[key] = (before + factor * (after.astype(np.float64) - before) + noise).astype(after.dtype)
        update.replace(noisy)
