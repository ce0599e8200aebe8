"""Tables of runs: mean and standard deviation over seeds, best rounds, and what it costs to reach a target."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedpkg.experiments.results import Group, short_key, value_text, values_of
from fedpkg.pictures.axes import bytes_text
from fedpkg.shown import shown

FORMATS = ("text", "markdown", "csv", "latex", "json")


@dataclass(frozen=True)
class Cell:
    """A number over the runs of a group.

    ``std`` is the sample standard deviation, sqrt(sum (x - mean)^2 / (n - 1)); None for fewer than two runs. ``num`` of
    ``of`` runs have the number; a mean over some of the runs is not comparable with one over all of them.
    """

    mean: float | None
    std: float | None
    num: int
    of: int


@dataclass(frozen=True)
class Column:
    name: str
    kind: str  # value, whole, bytes, seconds
    is_of_target: bool = False


@dataclass(frozen=True)
class Table:
    """``rows``: for each group the values of the keys, the number of runs, and a cell for each column."""

    metric: str
    mode: str  # max or min
    target: float | None
    keys: Sequence[str]
    columns: Sequence[Column]
    rows: Sequence[tuple[Mapping[str, Any], int, Sequence[Cell]]]


def table_of(groups: Sequence[Group], metric: str, *, phase: str | None, mode: str, target: float | None) -> Table:
    """The table of a metric.

    Args:
        mode: ``max`` or ``min``: which values are better.
        target: rounds, bytes and seconds until a round first has this value, or a better one.
    """
    columns = [Column(f"final {metric}", "value"), Column(f"best {metric}", "value"), Column("best round", "whole")]
    if target is not None:
        kinds = (("rounds", "whole"), ("bytes", "bytes"), ("seconds", "seconds"))
        columns += [Column(f"{name} to {target:g}", kind, True) for name, kind in kinds]
    rows = []
    for group in groups:
        found = [_numbers(run, metric, phase, mode, target) for run in group.runs]
        cells = [_cell([numbers[place] for numbers in found]) for place in range(len(columns))]
        rows.append((group.values, len(group.runs), cells))
    keys = list(groups[0].values) if groups else []
    return Table(metric, mode, target, keys, columns, rows)


def _numbers(run: Any, metric: str, phase: str | None, mode: str, target: float | None) -> list[float | None]:
    """Of one run: the last value, the best one, its round, and the costs of the target."""
    values = values_of(run, metric, phase)
    if not values:
        return [None] * (3 if target is None else 6)
    sign = -1.0 if mode == "min" else 1.0
    best = max(values, key=lambda number: (sign * values[number], -number))
    numbers: list[float | None] = [values[max(values)], values[best], float(best)]
    if target is not None:
        reached = next((number for number in sorted(values) if sign * (values[number] - target) >= 0), None)
        costs = None if reached is None else run.measured.costs.get(reached)
        numbers += [reached, None, None] if costs is None else [reached, costs.bytes, costs.seconds]
    return numbers


def _cell(numbers: Sequence[float | None]) -> Cell:
    found = [float(number) for number in numbers if number is not None]
    mean = statistics.fmean(found) if found else None
    return Cell(mean, statistics.stdev(found) if len(found) > 1 else None, len(found), len(numbers))


def written(table: Table, form: str) -> str:
    """The table as a text of one of `FORMATS`."""
    return _WRITTEN[form](table)


def header(table: Table) -> list[str]:
    return [*(short_key(key, table.keys) for key in table.keys), "runs", *(column.name for column in table.columns)]


def lines(table: Table, *, plus_minus: str = " ± ") -> list[list[str]]:
    """The cells as texts."""
    return [
        [
            *(shown(value_text(values[key])) for key in table.keys),
            str(number),
            *(cell_text(cell, column, plus_minus) for cell, column in zip(cells, table.columns, strict=True)),
        ]
        for values, number, cells in table.rows
    ]


def cell_text(cell: Cell, column: Column, plus_minus: str = " ± ") -> str:
    """``0.9312 ± 0.0041``; with the number of runs if not all have it; ``not reached`` for a target without a run."""
    if cell.mean is None:
        return "not reached" if column.is_of_target else "no value"
    text = _number(cell.mean, column.kind)
    if cell.std is not None:
        text += f"{plus_minus}{_number(cell.std, column.kind)}"
    return text if cell.num == cell.of else f"{text} ({cell.num} of {cell.of})"


def _number(value: float, kind: str) -> str:
    if kind == "bytes":
        return bytes_text(value)
    if kind in ("whole", "seconds"):
        return f"{value:.1f}"
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.4g}"


def _text(table: Table) -> str:
    rows = [header(table), *lines(table)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    padded = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(padded) + "\n"


def _markdown(table: Table) -> str:
    rows = [[cell.replace("\\", "\\\\").replace("|", "\\|") for cell in row] for row in [header(table), *lines(table)]]
    rule = ["---"] * len(table.keys) + ["---:"] * (len(rows[0]) - len(table.keys))
    return "".join(f"| {' | '.join(row)} |\n" for row in [rows[0], rule, *rows[1:]])


def _csv(table: Table) -> str:
    """Numbers in full: for each column its mean, standard deviation and number of runs; empty where there is none."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = [f"{column.name} {part}" for column in table.columns for part in ("mean", "std", "runs")]
    writer.writerow([*table.keys, "runs", *names])
    for values, number, cells in table.rows:
        numbers = [part for cell in cells for part in (cell.mean, cell.std, cell.num)]
        writer.writerow([*(value_text(values[key]) for key in table.keys), number, *numbers])
    return file.getvalue()


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--",
    "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def _latex(table: Table) -> str:
    rows = [["".join(_LATEX.get(one, one) for one in cell) for cell in row] for row in [header(table), *lines(table)]]
    places = "l" * len(table.keys) + "r" * (len(rows[0]) - len(table.keys))
    body = [f"  {' & '.join(row)} \\\\" for row in rows]
    inner = ["  \\toprule", body[0], "  \\midrule", *body[1:], "  \\bottomrule"]
    return "\n".join(["% \\usepackage{booktabs}", f"\\begin{{tabular}}{{{places}}}", *inner, "\\end{tabular}", ""])


def document(table: Table) -> dict[str, Any]:
    """The table as JSON: keys in full, numbers in full, null where no run has one."""
    rows = [
        {
            "keys": dict(values),
            "runs": number,
            "cells": {
                column.name: {"mean": cell.mean, "std": cell.std, "runs": cell.num}
                for column, cell in zip(table.columns, cells, strict=True)
            },
        }
        for values, number, cells in table.rows
    ]
    return {"metric": table.metric, "mode": table.mode, "target": table.target, "rows": rows}


_WRITTEN: dict[str, Callable[[Table], str]] = {
    "text": _text,
    "markdown": _markdown,
    "csv": _csv,
    "latex": _latex,
    "json": lambda table: json.dumps(document(table), indent=1, ensure_ascii=False, default=str) + "\n",
}
