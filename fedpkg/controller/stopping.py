"""Stop a session by a metric, and remember the round of its best model. Decided from the rows of rounds alone."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from fedpkg.config_sections import StopConfig
from fedpkg.errors import ConfigError, nearest
from fedpkg.stores.base import HELD_OUT, SERVER, TRAIN, RoundRow
from fedpkg.stores.metric_rows import best_is_lowest, name_in, round_values

_PREFIXES = (TRAIN, HELD_OUT, SERVER)


class StopWatch:
    """Looks at a session's finished rounds in order.

    A round without a value of the metric (it was not validated) is not counted; a value that is not finite counts as no
    improvement.

    Args:
        stop: None: the session runs all rounds.
        rounds: earlier finished rounds.
        is_validated: whether rounds are validated at all.

    Attributes:
        reason: why the session stops; None: it goes on.
        best: the round with the best value so far, the earliest of equal ones.

    Raises:
        ConfigError: a round that should have the metric does not have it (also from `look`).
    """

    def __init__(self, stop: StopConfig | None, rounds: Iterable[RoundRow], *, is_validated: bool) -> None:
        self.reason: str | None = None
        self.best: int | None = None
        self._stop = stop
        self._sign = 1.0
        if stop is not None:
            self._sign = -1.0 if best_is_lowest(msgspec.to_builtins(stop)) else 1.0
        self._is_validated = is_validated
        self._was_there = False
        self._best_value = -math.inf  # these values are multiplied by the sign: the highest is best
        self._reference = -math.inf  # the best value, as far as it exceeded the one before by min_delta
        self._measured_since = 0
        for row in rounds:
            self.look(row)

    def look(self, row: RoundRow) -> None:
        """Take the next finished round into account."""
        stop = self._stop
        if stop is None:
            return
        values = round_values(row)
        name = name_in(stop.metric, values)
        if name not in values:
            self._check_missing(stop.metric, row, values)
            return
        self._was_there = True
        value = values[name]
        if value is not None and math.isfinite(value):
            signed = self._sign * value
            if signed > self._best_value:
                self._best_value, self.best = signed, row.round_number
            self._note(signed, stop.min_delta)
        else:
            self._measured_since += 1
        if self.reason is None:
            self.reason = self._why(stop, value, row.round_number)

    def _note(self, signed: float, min_delta: float) -> None:
        is_better = signed > self._reference and signed - self._reference >= min_delta
        self._reference = signed if is_better else self._reference
        self._measured_since = 0 if is_better else self._measured_since + 1

    def _why(self, stop: StopConfig, value: float | None, round_number: int) -> str | None:
        if value is not None and stop.at_least is not None and value >= stop.at_least:
            return f"{stop.metric} is {value:.6g} in round {round_number} (stop.at_least: {stop.at_least:g})"
        if value is not None and stop.at_most is not None and value <= stop.at_most:
            return f"{stop.metric} is {value:.6g} in round {round_number} (stop.at_most: {stop.at_most:g})"
        if stop.patience is not None and self._measured_since >= stop.patience:
            best = "" if self.best is None else f"; best: {self._sign * self._best_value:.6g} in round {self.best}"
            return f"{stop.metric} has not improved in {self._measured_since} measured rounds (stop.patience){best}"
        return None

    def _check_missing(self, metric: str, row: RoundRow, values: dict[str, float | None]) -> None:
        """Raise ConfigError if this round should have the metric, and no round has had it."""
        prefix = _prefix(metric)
        was_measured = any(_prefix(name) == prefix for name in row.metrics)
        if self._was_there or (self._is_validated and prefix != TRAIN and not was_measured):
            return  # the round was not validated, or nobody answered
        known = sorted(values)
        raise ConfigError(
            f"stop.metric: round {row.round_number} has no metric '{metric}'{nearest(metric, known)}",
            hint=f"the metrics of the round: {', '.join(known)}" if known else "the round has no metrics",
            key="stop.metric",
        )


def _prefix(metric: str) -> str:
    return next((prefix for prefix in _PREFIXES if metric.startswith(prefix)), "")
