"""The tracker that is always on: ``metrics.jsonl`` in the session's folder, a line of JSON for each round."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedpkg.tracking.base import TrackedRound, TrackedRun
from fedpkg.tracking.registry import ALWAYS, register_tracker

FILE = "metrics.jsonl"


@register_tracker(ALWAYS)
class Jsonl:
    """Writes metrics.jsonl to the session's folder: one JSON object for each round. It is always on."""

    def __init__(self) -> None:
        self._path = Path()

    def begin(self, run: TrackedRun) -> None:
        self._path = run.folder / FILE
        keep_lines(self._path, lambda line: json.loads(line)["round"] <= run.num_tracked)

    def round(self, finished: TrackedRound) -> None:
        row = finished.row
        metrics: dict[str, dict[str, Any]] = {}
        for phase, metric, values in finished.rows():
            if phase == "round":
                continue
            known = {name: _finite(value) for name, value in values.items() if value not in (None, [])}
            metrics.setdefault(phase, {})[metric] = known
        line = {
            "session_id": row.session_id,
            "round": row.round_number,
            "finished_at": row.finished_at,
            "seconds": row.wall_s,
            "num_ok": row.num_ok,
            "num_failed": row.num_failed,
            "num_examples": row.num_examples,
            "metrics": metrics,
        }
        append(self._path, json.dumps(line, ensure_ascii=False, allow_nan=False))

    def end(self, status: str) -> None:
        """Every line is on disk already."""


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def append(path: Path, line: str) -> None:
    """Append a line to a file; a reader sees it at once."""
    with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(line + "\n")


def keep_lines(path: Path, is_kept: Callable[[str], bool]) -> None:
    """Remove the lines from the first one on that is not kept, or that a killed process has written in part."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    size = 0
    for line in data.splitlines(keepends=True):
        try:
            if not line.endswith(b"\n") or not is_kept(line.decode()):
                break
        except (ValueError, KeyError, TypeError, IndexError):
            break
        size += len(line)
    if size < len(data):
        with path.open("r+b") as file:
            file.truncate(size)
