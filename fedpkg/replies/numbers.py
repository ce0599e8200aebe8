"""Checks the values of a reply: they must be finite, and small enough for the results of the method to be finite."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from fedpkg.types import Use
from fedpkg.waist.answer import Refused

if TYPE_CHECKING:
    import torch

    from fedpkg.weights.weights import Weights

# A weighted sum of 2**24 terms, each at most this fraction of the dtype's largest number, is finite.
TERM = 2.0**-24
LARGEST_FORMER_TERM = 3.4e38 * TERM
# For parameters from which steps are computed: their squares, and sums of 2**27 of these, are finite in float32. Wider
# dtypes have the same limit, because a method may scale a step in all tensors by its length in one.
LARGEST_STEPPED = 2.0**50
# A server's step may exceed the range of the replies: momentum 0.9 by a factor of 14 (over all rounds).
ROOM_FOR_STEPS = 32


def check_numbers(
    sets: Mapping[str, Weights],
    examples: float,
    use: Use,
    known: Callable[[str], Weights | None],
    converted: str | None = None,
) -> None:
    """Refuse a reply whose values are not finite, or are too large for the results of the method to be finite.

    Unchanged buffers may have values that are not finite. Here, a refused value is the failure of its client; later it
    could not be attributed to a client, and would stop the session.

    Args:
        examples: The reply's weight.
        known: By set, the weights that the client was sent.
        converted: The dtypes that were converted, for the message.

    Raises:
        Refused: `not_finite` or `too_large`.
    """
    magnitudes = []
    for name, weights in sets.items():
        for key, largest in weights.magnitudes():
            if math.isfinite(largest):
                magnitudes.append((name, key, largest))
            elif key not in weights.buffers or not weights.is_unchanged_buffer(key, known(name)):
                reason = f"{_of_set(name)}tensor '{key}' has NaN or infinite values"
                raise Refused("not_finite", reason + (f" after a conversion ({converted})" if converted else ""))
    for name, key, largest in magnitudes:
        tensor, is_parameter = sets[name][key], key not in sets[name].buffers
        limits = value_limits(tensor.dtype, use, is_parameter=is_parameter)
        if largest * examples > limits[0] or largest > limits[1]:
            where = f"{_of_set(name)}tensor '{key}' has values up to {largest:.3g}"
            if largest <= limits[1]:
                raise Refused("too_large", f"{where}, too large to average over {examples:g} examples")
            raise Refused("too_large", f"{where}; this strategy allows parameters up to {limits[1]:.3g}")


@functools.cache
def value_limits(dtype: torch.dtype, use: Use, *, is_parameter: bool = True) -> tuple[float, float]:
    """The largest allowed value in a reply: multiplied by its weight, and by itself."""
    import torch

    if use == "former":
        return LARGEST_FORMER_TERM if dtype.itemsize < 8 else math.inf, math.inf
    real = dtype.to_real() if dtype.is_complex else dtype
    arithmetic = torch.promote_types(real, torch.float32) if real.itemsize > 1 else torch.float32
    term = torch.finfo(arithmetic).max * TERM
    if use == "averaged" or not is_parameter:
        return term, math.inf
    return term, min(LARGEST_STEPPED, torch.finfo(real).max / ROOM_FOR_STEPS)


def _of_set(name: str) -> str:
    return f"set '{name}': " if name else ""
