"""One warning per session when a metric becomes much worse in a round: the server's step may have broken the model.

The thresholds exceed ordinary noise: with cohorts of 3 of 10 clients, data split by dirichlet(0.1) and 3 other
clients validating in each round, the accuracy on digits changes by 0.4 between rounds (0.93, 0.51, 0.42, 0.68).
An accuracy collapses when it loses at least 0.4 and keeps at most 35 % of its value, as from 0.81 to 0.11. From
0.95 to 0.5 with two classes is within that noise, but shows in the loss. A loss collapses when it grows tenfold and
exceeds every earlier value, including the first round's: a small loss may grow tenfold by noise, but then stays far
below its first value. A model of one or two clients is often bad for the others, and a single validating client is
a different one in each round: such rounds never warn.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable

from fedpkg.log import event
from fedpkg.stores.base import HELD_OUT, RoundRow

logger = logging.getLogger("fedpkg.controller")

LEAST_UPDATES, LEAST_VALIDATIONS = 3, 2
LEAST_FALL, FALLEN_TO = 0.4, 0.35
GROWN_BY = 10.0
_ACCURACY = re.compile(r"(?<![a-z])(acc|accuracy|auc|auroc|f1|precision|recall|iou|dice|map)(?![a-z])", re.IGNORECASE)
_LOSS = re.compile(r"loss|perplexity|nll", re.IGNORECASE)


class CollapseWatch:
    """Checks a session's rounds in order. ``rounds``: earlier rounds, for which any warning has been given already.

    ``hint``: likely causes in this session.
    """

    def __init__(self, rounds: Iterable[RoundRow], *, hint: str) -> None:
        self._hint = hint
        self._warned = False
        self._values: dict[str, list[float]] = {}  # by metric, for all rounds; NaN: finite for no client
        for row in rounds:
            self._warned |= self._collapsed(row) is not None

    def look(self, row: RoundRow) -> None:
        """Warn if a metric has collapsed in this round, for the first time in the session."""
        name = self._collapsed(row)
        if name is not None and not self._warned:
            self._warned = True
            before, after = self._values[name][-2:]
            event(
                logger,
                logging.WARNING,
                "metric.collapsed",
                round=row.round_number,
                metric=name,
                before=before,
                after=after,
                about=f"the model is much worse after this round's server step; check {self._hint}",
            )

    def _collapsed(self, row: RoundRow) -> str | None:
        about = row.averages.get("validate", {})
        is_sure = len(row.counted or ()) >= LEAST_UPDATES and about.get("num_clients", 0) >= LEAST_VALIDATIONS
        found = None
        for name, value in row.metrics.items():
            if name.startswith(HELD_OUT) or (value is None and name not in about.get("finite", {})):
                continue
            values = self._values.setdefault(name, [])
            values.append(math.nan if value is None else value)
            if is_sure and found is None and _is_collapse(name, values):
                found = name
        return found


def _is_collapse(name: str, values: list[float]) -> bool:
    """Whether the last value of a metric is a collapse; all values are finite or NaN."""
    is_accuracy, is_loss = _ACCURACY.search(name), _LOSS.search(name)
    if len(values) < 2 or not math.isfinite(before := values[-2]) or not (is_accuracy or is_loss):
        return False
    after = values[-1]
    if not math.isfinite(after):
        return True
    if is_loss:
        return before > 0 and after > GROWN_BY * before and after > max(v for v in values[:-1] if math.isfinite(v))
    is_share = all(0 <= value <= 1 for value in values if math.isfinite(value))
    return is_share and before - after >= LEAST_FALL and after <= FALLEN_TO * before
