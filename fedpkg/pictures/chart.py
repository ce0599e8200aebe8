"""Charts as data. They know nothing of colours, pixels or files: `svg` and `raster` draw them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

Number: TypeAlias = "float | int | None"  # None, NaN and infinite values are gaps
AxisKind: TypeAlias = Literal["number", "whole", "bytes"]


@dataclass(frozen=True)
class Axis:
    """An axis. ``whole``: ticks at whole numbers only. ``bytes``: values are bytes, and ticks have units (kB, MB …)."""

    label: str = ""
    kind: AxisKind = "number"
    log: bool = False  # logarithmic; values that are not positive are gaps


@dataclass(frozen=True)
class Band:
    """An area between two curves over the curve's ``xs``."""

    low: Sequence[Number]
    high: Sequence[Number]
    name: str = ""  # for the legend; bands of one name have one entry


@dataclass(frozen=True)
class Curve:
    """A line through the points (xs[i], ys[i]), and bands around it.

    Raises:
        ValueError: the sequences differ in length.
    """

    name: str
    xs: Sequence[Number]
    ys: Sequence[Number]
    bands: Sequence[Band] = ()

    def __post_init__(self) -> None:
        if any(len(self.xs) != len(one) for one in (self.ys, *(s for b in self.bands for s in (b.low, b.high)))):
            raise ValueError(f"curve {self.name!r}: xs, ys and bands have different lengths")


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What all charts have. ``about`` describes the chart for those who cannot see it; empty: a summary of the data."""

    title: str
    about: str = ""


@dataclass(frozen=True, kw_only=True)
class LineChart(Chart):
    """Curves over each other. ``faint`` ones lie behind, and have one entry of the legend, ``faint_name``."""

    curves: Sequence[Curve]
    x: Axis = Axis()
    y: Axis = Axis()
    faint: Sequence[Curve] = ()
    faint_name: str = ""


@dataclass(frozen=True, kw_only=True)
class BarChart(Chart):
    """A group of bars for each of ``labels``: one bar for each series, side by side or stacked.

    Raises:
        ValueError: a series has another number of values than there are labels, or a stacked value is negative.
    """

    labels: Sequence[str]
    series: Mapping[str, Sequence[Number]]  # name → a value for each label
    stacked: bool = False
    x: Axis = Axis()
    y: Axis = Axis()

    def __post_init__(self) -> None:
        for name, values in self.series.items():
            if len(values) != len(self.labels):
                raise ValueError(f"series {name!r} has {len(values)} values for {len(self.labels)} labels")
            if self.stacked and any(value is not None and value < 0 for value in values):
                raise ValueError(f"series {name!r} has a negative value, which cannot be stacked")


@dataclass(frozen=True, kw_only=True)
class HeatMap(Chart):
    """A value for each row and column, by the strength of a colour.

    Args:
        from_zero: the weakest colour is that of zero, or of the least value below it; else that of the least value.

    Raises:
        ValueError: ``values`` has not the shape (number of rows, number of columns).
    """

    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[Number]]
    x: Axis = Axis()
    y: Axis = Axis()
    value: Axis = Axis()
    from_zero: bool = True

    def strengths(self) -> tuple[float, float]:
        """The values of the weakest and the strongest colour."""
        found = finite([value for line in self.values for value in line])
        low, high = min(found, default=0.0), max(found, default=1.0)
        return (min(low, 0.0) if self.from_zero or low == high else low), high

    def __post_init__(self) -> None:
        if len(self.values) != len(self.rows) or any(len(line) != len(self.columns) for line in self.values):
            raise ValueError(f"a heat map of {len(self.rows)} × {len(self.columns)} needs values of that shape")


@dataclass(frozen=True, kw_only=True)
class Histogram(Chart):
    """Counts between edges: counts[i] values lie between edges[i] and edges[i + 1].

    Raises:
        ValueError: there is not one more edge than counts.
    """

    edges: Sequence[float]
    counts: Sequence[float]
    x: Axis = Axis()
    y: Axis = Axis("number", "whole")

    def __post_init__(self) -> None:
        if len(self.edges) != len(self.counts) + 1:
            raise ValueError(f"{len(self.counts)} counts need one edge more, not {len(self.edges)} edges")


@dataclass(frozen=True)
class Node:
    """A node of a tree; ``parent`` is the name of another, None is a root. ``note`` is a second, quiet line."""

    name: str
    parent: str | None = None
    label: str = ""  # empty: the name
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Dendrogram(Chart):
    """Merges of leaves: each merge joins two of the leaves and former merges at a height.

    Leaf i has the number i; merge j, counted from 0, has the number of leaves plus j.

    Args:
        groups: by leaf, the name of its group, which has a colour.

    Raises:
        ValueError: there is not one group for each label and one merge fewer than labels, or a merge joins something
            that does not exist yet or was joined before.
    """

    labels: Sequence[str]
    groups: Sequence[str]
    merges: Sequence[tuple[int, int, float]]
    x: Axis = Axis()

    def __post_init__(self) -> None:
        count = len(self.labels)
        if len(self.groups) != count or len(self.merges) != count - 1:
            raise ValueError(f"{count} labels need a group each and {count - 1} merges")
        is_free = [True] * count
        for left, right, _ in self.merges:
            if left == right or not all(0 <= one < len(is_free) and is_free[one] for one in (left, right)):
                raise ValueError(f"{left} and {right} cannot be merged: one is unknown, or was merged before")
            is_free[left] = is_free[right] = False
            is_free.append(True)


@dataclass(frozen=True, kw_only=True)
class TreeChart(Chart):
    """Trees from left to right.

    Raises:
        ValueError: two nodes have one name, a parent does not exist, or parents form a circle.
    """

    nodes: Sequence[Node]

    def __post_init__(self) -> None:
        parents = {node.name: node.parent for node in self.nodes}
        if len(parents) != len(self.nodes):
            raise ValueError("two nodes of the tree have one name")
        rooted: set[str | None] = {None}
        for name in parents:
            path: list[str | None] = []
            at: str | None = name
            while at not in rooted:
                if at in path or at not in parents:
                    raise ValueError(f"node {name!r}: its ancestor {at!r} is unknown, or its own ancestor")
                path.append(at)
                at = parents[at]
            rooted.update(path)


def finite(values: Sequence[Number]) -> list[float]:
    """The finite values among these."""
    return [float(value) for value in values if value is not None and math.isfinite(value)]


def histogram(values: Sequence[Number], *, title: str, x: Axis, bins: int = 20, about: str = "") -> Histogram:
    """The histogram of the finite ones among these values, in bins of equal width; of whole numbers, whole bins."""
    found = finite(values)
    low, high = min(found, default=0.0), max(found, default=1.0)
    if x.kind == "whole":
        width = max(1, math.ceil((high - low + 1) / bins))
        edges = [low - 0.5 + width * number for number in range(math.ceil((high - low + 1) / width) + 1)]
    else:
        spread = high - low or max(abs(high), 1.0) * 0.1
        edges = [low + spread * number / bins for number in range(bins + 1)]
    counts = [0] * (len(edges) - 1)
    for value in found:
        counts[min(int((value - edges[0]) / (edges[1] - edges[0])), len(counts) - 1)] += 1
    return Histogram(title=title, x=x, edges=edges, counts=counts, about=about)


def binned_bars(chart: BarChart, most: int) -> BarChart:
    """The chart with at most ``most`` groups of bars: each is the mean of neighbours, and the axis says of how many."""
    size = -(-len(chart.labels) // most)
    if size < 2:
        return chart
    series = {name: _means(values, size) for name, values in chart.series.items()}
    return replace(chart, labels=chart.labels[::size], series=series, x=_binned_axis(chart.x, size))


def binned_cells(chart: HeatMap, most: int) -> HeatMap:
    """The heat map with at most ``most`` rows and columns: each is the mean of neighbours, and the axis says so."""
    size = -(-len(chart.columns) // most)
    if size > 1:
        chart = replace(
            chart, columns=chart.columns[::size], values=[_means(line, size) for line in chart.values],
            x=_binned_axis(chart.x, size),
        )  # fmt: skip
    size = -(-len(chart.rows) // most)
    if size > 1:
        columns = [_means([line[number] for line in chart.values], size) for number in range(len(chart.columns))]
        values = [list(line) for line in zip(*columns, strict=True)]
        chart = replace(chart, rows=chart.rows[::size], values=values, y=_binned_axis(chart.y, size))
    return chart


def _binned_axis(axis: Axis, size: int) -> Axis:
    return replace(axis, label=f"{axis.label} (means of {size} neighbours)".strip())


def _means(values: Sequence[Number], size: int) -> list[Number]:
    groups = [finite(values[start : start + size]) for start in range(0, len(values), size)]
    return [sum(group) / len(group) if group else None for group in groups]
