"""Charts as tables: what a reader finds behind a picture, and what its CSV file has."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

from fedpkg.pictures.axes import number_text
from fedpkg.pictures.chart import (
    AxisKind,
    BarChart,
    Chart,
    Curve,
    Dendrogram,
    HeatMap,
    Histogram,
    LineChart,
    Number,
    TreeChart,
)

Cell: TypeAlias = "str | Number"


@dataclass(frozen=True)
class Table:
    """Rows of texts and numbers under names. ``kinds``: what the numbers of each column are."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    kinds: Sequence[AxisKind]

    def texts(self) -> list[list[str]]:
        """The rows as a person reads them: short numbers, bytes with units."""
        return [[_shown(cell, kind) for cell, kind in zip(row, self.kinds, strict=True)] for row in self.rows]

    def numbers(self) -> list[int]:
        """Which columns have no texts."""
        return [n for n in range(len(self.columns)) if not any(isinstance(row[n], str) for row in self.rows)]


def _shown(cell: Cell, kind: AxisKind) -> str:
    if cell is None or isinstance(cell, str):
        return cell or "–"
    return str(cell) if kind == "whole" and isinstance(cell, int) else number_text(cell, kind)


def table_of(chart: Chart) -> Table:
    """The chart's data. Curves over the same places share a row; other curves lie below each other."""
    if isinstance(chart, LineChart):
        return _lines(chart)
    if isinstance(chart, BarChart):
        rows: Sequence[Sequence[Cell]] = list(zip(chart.labels, *chart.series.values(), strict=True))
        return Table([chart.x.label or "label", *chart.series], rows, ["number", *[chart.y.kind] * len(chart.series)])
    if isinstance(chart, HeatMap):
        rows = [[name, *line] for name, line in zip(chart.rows, chart.values, strict=True)]
        kinds: list[AxisKind] = ["number", *[chart.value.kind] * len(chart.columns)]
        return Table([chart.y.label or "row", *chart.columns], rows, kinds)
    if isinstance(chart, Histogram):
        rows = [(*edges, count) for edges, count in zip(pairwise(chart.edges), chart.counts, strict=True)]
        return Table(["from", "to", chart.y.label or "number"], rows, [chart.x.kind, chart.x.kind, chart.y.kind])
    if isinstance(chart, Dendrogram):
        joined = {leaf: height for *pair, height in reversed(chart.merges) for leaf in pair}
        rows = [(name, chart.groups[leaf], joined.get(leaf)) for leaf, name in enumerate(chart.labels)]
        return Table(["leaf", "group", "joined at"], rows, ["number", "number", chart.x.kind])
    assert isinstance(chart, TreeChart)
    names = {node.name: node.label or node.name for node in chart.nodes}
    rows = [(names[node.name], node.parent and names[node.parent], node.note) for node in chart.nodes]
    return Table(["node", "below", "note"], rows, ["number"] * 3)


def _lines(chart: LineChart) -> Table:
    curves = [*chart.curves, *chart.faint]
    if any(list(curve.xs) != list(curves[0].xs) for curve in curves):
        rows = [(curve.name, *cells) for curve in curves for cells in zip(curve.xs, curve.ys, strict=True)]
        return Table(
            ["curve", chart.x.label or "x", chart.y.label or "y"], rows, ["number", chart.x.kind, chart.y.kind]
        )
    named = [column for curve in curves for column in _columns(curve, chart.y.label or "y")]
    places = curves[0].xs if curves else []
    rows = list(zip(places, *(values for _, values in named), strict=True))
    kinds: list[AxisKind] = [chart.x.kind, *[chart.y.kind] * len(named)]
    return Table([chart.x.label or "x", *(name for name, _ in named)], rows, kinds)


def _columns(curve: Curve, unnamed: str) -> Iterable[tuple[str, Sequence[Number]]]:
    name = curve.name or unnamed
    yield name, curve.ys
    for band in curve.bands:
        yield f"{name}, {band.name or 'band'}: from", band.low
        yield f"{name}, {band.name or 'band'}: to", band.high


def csv_of(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows as CSV. A text that a spreadsheet would compute begins with an apostrophe; what is not finite is empty."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(map(csv_cell, columns))
    writer.writerows(map(csv_cell, row) for row in rows)
    return file.getvalue()


def csv_cell(value: object) -> object:
    """A cell of a CSV file."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return "'" + value
    return "" if isinstance(value, float) and not math.isfinite(value) else value
