"""``metrics.csv`` in the session's folder: a line for each metric of each round, with its aggregates as columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedpkg.tracking.base import AGGREGATES, TrackedRound, TrackedRun
from fedpkg.tracking.jsonl import append, keep_lines
from fedpkg.tracking.registry import register_tracker

FILE = "metrics.csv"
_PLAIN = [name for name in AGGREGATES if name != "deciles"]
COLUMNS = ["round", "phase", "metric", *_PLAIN, *(f"decile_{number}" for number in range(1, 10))]


@register_tracker("csv")
class Csv:
    """Writes metrics.csv: one line for each round, phase and metric; the columns are its aggregates over clients."""

    def __init__(self, folder: str | None = None) -> None:
        """
        Args:
            folder: Folder for <session>.csv. null: metrics.csv in the session's folder.
        """
        self._folder = folder
        self._path = Path()

    def begin(self, run: TrackedRun) -> None:
        self._path = run.folder / FILE
        if self._folder is not None:
            self._path = Path(self._folder) / f"{run.session_id}.csv"
            self._path.parent.mkdir(parents=True, exist_ok=True)
        keep_lines(self._path, lambda line: line.startswith("round,") or int(line.split(",")[0]) <= run.num_tracked)
        if not self._path.exists() or not self._path.stat().st_size:
            append(self._path, _line(COLUMNS))

    def round(self, finished: TrackedRound) -> None:
        lines = []
        for phase, metric, values in finished.rows():
            numbers = [values.get(name) for name in _PLAIN]
            deciles = list(values.get("deciles") or [None] * 9)
            metric = metric.replace("\n", " ").replace("\r", " ")  # each line of the file is one row
            lines.append(_line([finished.number, phase, metric, *numbers, *deciles]))
        append(self._path, "\n".join(lines))

    def end(self, status: str) -> None:
        """Every line is on disk already."""


def _line(cells: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(["" if cell is None else cell for cell in cells])
    return text.getvalue()
