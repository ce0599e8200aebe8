"""Scales, ticks and the texts of numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fedpkg.pictures.chart import Axis, AxisKind

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


@dataclass(frozen=True)
class Scale:
    """Values of ``axis`` between ``low`` and ``high``, at positions from ``start`` to ``end``."""

    axis: Axis
    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    texts: tuple[str, ...]

    def at(self, value: float) -> float | None:
        """The position of a value; None: it has none (not finite, larger than 1e300, or ≤ 0 on a logarithmic axis)."""
        if not _has_place(value, self.axis):
            return None
        low, high = self.low, self.high
        if self.axis.log:
            value, low, high = math.log10(value), math.log10(low), math.log10(high)
        return self.start + (self.end - self.start) * ((value - low) / (high - low))


def scale(
    axis: Axis, values: Iterable[float], start: float, end: float, *, most: int = 6, from_zero: bool = False
) -> Scale:
    """The scale that holds these values. It ends at a tick, but for ``whole`` axes, which end with the values.

    Args:
        most: about how many ticks.
        from_zero: zero is within the scale.
    """
    found = [value for value in values if _has_place(value, axis)]
    low, high = min(found, default=0.0), max(found, default=1.0)
    if axis.log:
        return _log_scale(axis, low if found else 0.1, high, start, end)
    if from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low <= max(abs(low), abs(high), 1e-200) * 1e-12:
        room = 0.5 if axis.kind == "whole" else max(abs(low) * 0.1, 1e-3 if low else 0.5)
        low, high = low - room * (low != 0 or not from_zero), high + room
    step = nice_step((high - low) / max(most, 1), whole=axis.kind == "whole")
    if axis.kind != "whole" or from_zero:
        low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    ticks = tuple(number * step for number in range(first, last + 1))
    return Scale(axis, low, high, start, end, ticks, tuple(tick_texts(ticks, axis.kind)))


def _has_place(value: float, axis: Axis) -> bool:
    return abs(value) <= 1e300 and (not axis.log or value >= 1e-300)  # false for NaN, too


def nice_step(rough: float, *, whole: bool = False) -> float:
    """The smallest of 1, 2, 2.5 or 5 times a power of ten that is not below ``rough``.

    Source: P. S. Heckbert, Nice numbers for graph labels, Graphics Gems, 1990.
    """
    if whole and rough <= 1:
        return 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    factors = (1, 2, 5, 10) if whole else (1, 2, 2.5, 5, 10)
    return next(factor * power for factor in factors if factor * power >= rough * (1 - 1e-9))


def _log_scale(axis: Axis, low: float, high: float, start: float, end: float) -> Scale:
    if high <= low * (1 + 1e-9):
        low, high = low / 2, high * 2
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, (last - first) // 6)
    factors = (1, 2, 5) if last - first <= 2 else (1,)
    powers = range(first, last + 1, every)
    ticks = tuple(t for power in powers for factor in factors if low <= (t := factor * 10.0**power) <= high)
    ticks = ticks or (low, high)
    return Scale(axis, low, high, start, end, ticks, tuple(number_text(tick, axis.kind) for tick in ticks))


def tick_texts(ticks: Sequence[float], kind: AxisKind) -> list[str]:
    """The texts of evenly spaced ticks, with as many decimals as make them differ."""
    largest = max(map(abs, ticks), default=0.0)
    if kind == "bytes":
        return [bytes_text(tick) for tick in ticks]
    if largest >= 1e6 or 0 < largest < 1e-3:
        return [number_text(tick) for tick in ticks]
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    decimals = next((n for n in range(7) if abs(round(step, n) - step) < step * 1e-6), 7)
    return [f"{tick:.{decimals}f}".replace("-", "−") for tick in ticks]


def number_text(value: float, kind: AxisKind = "number") -> str:
    """A number in at most four significant digits: ``0.9132``, ``12 300``, ``1.2e+09``; bytes with their unit."""
    if kind == "bytes":
        return bytes_text(value)
    if not math.isfinite(value):
        return "–"
    if 1e4 <= abs(value) < 1e6:
        return f"{value:,.0f}".replace(",", "\u202f").replace("-", "−")
    return f"{value:.4g}".replace("-", "−")


def bytes_text(value: float) -> str:
    """Bytes in powers of 1000, at most three significant digits: ``250 MB``."""
    power = min(int(math.log10(abs(value)) / 3 + 1e-9), len(_UNITS) - 1) if abs(value) >= 1 else 0
    return f"{value / 1000**power:.3g} {_UNITS[power]}"
