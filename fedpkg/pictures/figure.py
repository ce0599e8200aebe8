"""Charts as plotly's figures in plain data. plotly itself is not imported: a browser runs its script.

A figure has colours for a light page; ``dark`` maps each of them to the colour on a dark page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import pairwise
from typing import Any, TypeAlias

from fedpkg.pictures.axes import number_text
from fedpkg.pictures.canvas import LEGEND_MOST, shortened, text_width
from fedpkg.pictures.chart import (
    Axis,
    AxisKind,
    Band,
    BarChart,
    Chart,
    Curve,
    Dendrogram,
    HeatMap,
    Histogram,
    LineChart,
    Number,
    TreeChart,
    binned_bars,
    binned_cells,
    finite,
)
from fedpkg.pictures.palette import FONT, LIGHT, LIGHT_PAGE, colour_of, dark_of, dash_of, hatch_of
from fedpkg.pictures.svg_lines import kept_of
from fedpkg.pictures.trees import brackets, places
from fedpkg.shown import shown

Part: TypeAlias = "dict[str, Any]"  # of a figure, in plotly's names
MOST_POINTS = 60_000  # of all curves of a chart
MOST_COLUMNS = 800  # of one curve; each has at most four points
MOST_BARS = 400
MOST_CELLS = 300  # of a heat map, each way
MOST_TICKS = 12
_BAND = 0.16
_FAINT = 0.35


def to_plotly(chart: Chart) -> Part:
    """The figure: ``data``, ``layout`` and ``dark``. Texts are escaped, because plotly reads some HTML in them."""
    data, layout = _DRAWN[type(chart)](chart)
    ink, quiet, paper = LIGHT_PAGE["ink"], LIGHT_PAGE["quiet"], LIGHT_PAGE["paper"]
    title_font = {"size": 15, "color": ink, "weight": 600}
    whole: Part = {
        "title": {"text": _text(chart.title, 560, 15), "x": 0, "xref": "paper", "font": title_font},
        "font": {"family": FONT, "size": 12, "color": quiet},
        "paper_bgcolor": paper,
        "plot_bgcolor": paper,
        "margin": {"l": 52, "r": 16, "t": 44, "b": 44},
        "legend": {
            "orientation": "h", "traceorder": "normal", "x": 0, "xanchor": "left", "font": {"color": ink},
            "y": -64 / layout.get("height", 320), "yanchor": "top",
        },
        "hoverlabel": {"namelength": 40, "bgcolor": paper, "bordercolor": LIGHT_PAGE["edge"], "font": {"color": ink}},
        "showlegend": sum(bool(trace.get("showlegend")) for trace in data) > 1,
        "uirevision": "kept",  # an update leaves the zoom as it is
        **layout,
    }  # fmt: skip
    return {"data": data, "layout": whole, "dark": dict(_dark_colours())}


def _dark_colours() -> Iterator[tuple[str, str]]:
    for light in (*LIGHT, *LIGHT_PAGE.values()):
        yield light, dark_of(light)
    for light in LIGHT:
        yield _transparent(light, _BAND), _transparent(dark_of(light), _BAND)
    yield _transparent(LIGHT[0], _FAINT), _transparent(dark_of(LIGHT[0]), _FAINT)


def _transparent(colour: str, alpha: float) -> str:
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"


def _text(text: str, room: float = 300, size: float = 12) -> str:
    """A text of whatever origin, in which plotly finds neither a tag nor an entity."""
    return escape(shortened(shown(text), room, size), quote=False)


def _number(value: Number, *, log: bool = False) -> float | int | None:
    """The value, in six significant digits; None: it has no place on the axis."""
    if value is None or not abs(value) <= 1e300 or (log and value <= 0):
        return None
    return float(f"{value:.6g}") if isinstance(value, float) and not value.is_integer() else value


def _numbers(values: Sequence[Number], *, log: bool) -> list[float | int | None]:
    return [_number(value, log=log) for value in values]


def _axis(axis: Axis, values: Sequence[Number]) -> Part:
    """An axis with its grid; ``values`` are those that it must hold."""
    found = finite(values)
    told: Part = {
        "title": {"text": _text(axis.label, 200), "standoff": 8},
        "gridcolor": LIGHT_PAGE["grid"],
        "linecolor": LIGHT_PAGE["edge"],
        "zeroline": False,
        "automargin": True,
        "nticks": MOST_TICKS // 2,
    }
    if axis.log:
        told |= {"type": "log", "dtick": 1} if found and max(found) > 100 * max(min(found), 1e-300) else {"type": "log"}
    elif found and min(found) >= 0:
        told["rangemode"] = "nonnegative"
    if axis.kind == "bytes":
        told |= {"tickformat": "~s", "ticksuffix": "B", "hoverformat": ".4~s"}
    elif axis.kind == "whole" and not axis.log and found and max(found) - min(found) <= MOST_TICKS / 2:
        told |= {"tick0": 0, "dtick": 1}
    else:
        told |= {"hoverformat": ",d" if axis.kind == "whole" else ".5~g", "separatethousands": True}
    return told


def _named_axis(axis: Axis, names: Sequence[str], most: int, room: float = 150) -> Part:
    """An axis with names at 0, 1, 2 …, at most ``most`` of them."""
    numbers = range(0, len(names), max(1, -(-len(names) // most)))
    texts = [_text(names[number], room) for number in numbers]
    return {**_axis(axis, ()), "tickvals": list(numbers), "ticktext": texts, "showgrid": False}


def _lines(chart: LineChart) -> tuple[list[Part], Part]:
    everything = [*chart.faint, *chart.curves]
    spots = [value for curve in everything for value in finite(curve.xs) if not chart.x.log or value > 0]
    count = max(20, min(MOST_COLUMNS, MOST_POINTS // 4 // max(1, len(everything))))
    columns = _Columns(min(spots, default=1.0), max(spots, default=1.0), count, chart.x.log)
    data = [_faint(curve, chart, columns) for curve in chart.faint]
    if chart.faint:
        look = {"color": _transparent(LIGHT[0], _FAINT), "width": 1}
        entry = {"name": _text(chart.faint_name), "legendgroup": "faint", "showlegend": True, "line": look}
        data.append({"type": "scatter", "mode": "lines", "x": [None], "y": [None], **entry})
    named: set[str] = set()
    for number, curve in enumerate(chart.curves):
        for band in curve.bands:
            data.append(_band(curve, band, LIGHT[colour_of(number)], chart, columns, is_first=band.name not in named))
            named.add(band.name)
    listed = len(chart.curves) if len(chart.curves) <= LEGEND_MOST * 2 else LEGEND_MOST
    data += [
        _curve(number, curve, chart, columns, in_legend=number < listed) for number, curve in enumerate(chart.curves)
    ]
    is_readable = len(chart.curves) <= 8 and not chart.faint
    layout = {
        "xaxis": _axis(chart.x, spots),
        "yaxis": _axis(chart.y, [value for curve in everything for value in curve.ys]),
        "hovermode": "x unified" if is_readable else "closest",
    }
    return data, layout


Piece: TypeAlias = "list[tuple[float, ...]]"


def _pieces(chart: LineChart, xs: Sequence[Number], *heights: Sequence[Number]) -> Iterator[Piece]:
    """Points (x, height …) between the gaps."""
    columns = [_numbers(xs, log=chart.x.log), *(_numbers(ys, log=chart.y.log) for ys in heights)]
    piece: Piece = []
    for point in zip(*columns, strict=True):
        if None not in point:
            piece.append(point)
        elif piece:
            yield piece
            piece = []
    if piece:
        yield piece


@dataclass(frozen=True)
class _Columns:
    """Columns of pixels in which at most four points of a curve are kept."""

    low: float
    high: float
    count: int
    is_log: bool

    def place(self, x: float) -> float:
        low, high = self.low, self.high
        if low >= high:
            return 0.0
        if self.is_log:
            x, low, high = math.log(x), math.log(low), math.log(high)
        return (x - low) / (high - low) * self.count


def _thinned(piece: Piece, side: int, columns: _Columns) -> list[tuple[float, float]]:
    """The points (x, height) that a picture needs. ``side``: which of the heights, from 1."""
    points = [(point[0], point[side]) for point in piece]
    if len(points) <= columns.count:
        return points
    return [points[number] for number in kept_of([(columns.place(x), y) for x, y in points])]


def _outline(pieces: Sequence[Sequence[tuple[float, float]]]) -> Part:
    """The coordinates of pieces, with a gap between them."""
    points = [point for piece in pieces for point in ((None, None), *piece)][1:]
    return {"x": [x for x, _ in points], "y": [y for _, y in points]}


def _curve(number: int, curve: Curve, chart: LineChart, columns: _Columns, *, in_legend: bool) -> Part:
    pieces = [_thinned(piece, 1, columns) for piece in _pieces(chart, curve.xs, curve.ys)]
    has_markers = sum(map(len, pieces)) <= 30 or any(len(piece) == 1 for piece in pieces)
    colour = LIGHT[colour_of(number)]
    return {
        "type": "scatter",
        "mode": "lines+markers" if has_markers else "lines",
        "name": _text(curve.name),
        "showlegend": in_legend,
        "legendrank": 1,
        "line": {"color": colour, "width": 1.8, "dash": _dash(number)},
        "marker": {"color": colour, "size": 5},
        **_outline(pieces),
    }


def _dash(number: int) -> str:
    return ",".join(f"{length}px" for length in dash_of(number).split()) or "solid"


def _faint(curve: Curve, chart: LineChart, columns: _Columns) -> Part:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": _text(curve.name),
        "legendgroup": "faint",
        "showlegend": False,
        "line": {"color": _transparent(LIGHT[0], _FAINT), "width": 1},
        **_outline([_thinned(piece, 1, columns) for piece in _pieces(chart, curve.xs, curve.ys)]),
    }


def _band(curve: Curve, band: Band, colour: str, chart: LineChart, columns: _Columns, *, is_first: bool) -> Part:
    """An area, as one closed line for each piece without gaps."""
    pieces = [
        [*_thinned(piece, 1, columns), *reversed(_thinned(piece, 2, columns))]
        for piece in _pieces(chart, curve.xs, band.low, band.high)
    ]
    return {
        "type": "scatter",
        "mode": "none",
        "fill": "toself",
        "fillcolor": _transparent(colour, _BAND),
        "name": _text(band.name),
        "legendgroup": _text(f"band {band.name}"),
        "hoverinfo": "skip",
        "showlegend": bool(band.name) and is_first,
        **_outline(pieces),
    }


def _bars(chart: BarChart) -> tuple[list[Part], Part]:
    chart = binned_bars(chart, MOST_BARS)
    whole = _whole_numbers(chart.labels)
    xs: Sequence[int] = whole or range(len(chart.labels))
    labels = [_text(label) for label in chart.labels]
    data = []
    for number, (name, values) in enumerate(chart.series.items()):
        told = [_told(value, chart.y.kind) for value in values]
        texts = [f"{label}, {_text(name)}: {value}" for label, value in zip(labels, told, strict=True)]
        marker: Part = {"color": LIGHT[colour_of(number)]}
        if hatch := hatch_of(number):
            look = {"fillmode": "overlay", "fgcolor": LIGHT_PAGE["paper"], "size": 6, "solidity": 0.25}
            marker["pattern"] = {"shape": hatch, **look}
        data.append({
            "type": "bar", "name": _text(name), "x": list(xs), "y": [_number(value) for value in values],
            "hovertext": texts, "hoverinfo": "text", "marker": marker, "showlegend": True,
        })  # fmt: skip
    x = (
        _axis(replace(chart.x, kind="whole"), xs) | {"showgrid": False}
        if whole
        else _named_axis(chart.x, chart.labels, MOST_TICKS)
    )
    columns = list(zip(*chart.series.values(), strict=True))
    sums = [sum(finite(column)) if chart.stacked else max(finite(column), default=0.0) for column in columns]
    layout = {"barmode": "stack" if chart.stacked else "group", "bargap": 0.2 if len(labels) < 60 else 0}
    return data, {**layout, "xaxis": x, "yaxis": _axis(chart.y, [0, *sums]) | {"rangemode": "tozero"}}


def _whole_numbers(labels: Sequence[str]) -> list[int]:
    """Labels that are evenly spaced whole numbers, such as rounds, as numbers; else nothing."""
    if not all(label.isascii() and label.isdecimal() and len(label) < 10 for label in labels):
        return []
    numbers = [int(label) for label in labels]
    steps = {after - before for before, after in pairwise(numbers)}
    return numbers if len(steps) <= 1 and min(steps, default=1) > 0 else []


def _told(value: Number, kind: AxisKind = "number") -> str:
    return "–" if value is None else number_text(value, kind)


def _heat_map(chart: HeatMap) -> tuple[list[Part], Part]:
    chart = binned_cells(chart, MOST_CELLS)
    low, high = chart.strengths()
    rows, columns = [_text(name) for name in chart.rows], [_text(name) for name in chart.columns]
    trace: Part = {
        "type": "heatmap", "z": [[_number(value) for value in line] for line in chart.values],
        "zmin": low, "zmax": high,
        "colorscale": [[0, LIGHT_PAGE["paper"]], [1, LIGHT[0]]],
        "colorbar": {"title": {"text": _text(chart.value.label), "side": "right"}, "thickness": 12, "outlinewidth": 0},
        "hoverinfo": "text",
        "xgap": 1 if len(columns) <= 60 else 0, "ygap": 1 if len(rows) <= 60 else 0,
        "hovertext": [
            [f"{row}, {column}: {_told(value, chart.value.kind)}" for column, value in zip(columns, line, strict=True)]
            for row, line in zip(rows, chart.values, strict=True)
        ] if len(rows) * len(columns) <= 10_000 else None,
    }  # fmt: skip
    if trace["hovertext"] is None:
        del trace["hovertext"]
        trace["hoverinfo"] = "x+y+z"
    if len(rows) * len(columns) <= 300 and len(columns) <= 14:
        trace["text"] = [[_told(value, chart.value.kind) for value in line] for line in chart.values]
        trace["texttemplate"] = "%{text}"
    y = _named_axis(chart.y, chart.rows, 40, 120) | {"autorange": "reversed"}
    layout = {"xaxis": _named_axis(chart.x, chart.columns, MOST_TICKS), "yaxis": y}
    return [trace], {**layout, "height": _rows_height(len(rows), 26)}


def _rows_height(rows: int, each: int) -> int:
    """The least height at which rows can be read."""
    return min(160 + each * min(rows, 40), 1000)


def _histogram(chart: Histogram) -> tuple[list[Part], Part]:
    pairs = list(pairwise(chart.edges))
    texts = [
        f"{_told(low, chart.x.kind)} to {_told(high, chart.x.kind)}: {_told(count)}"
        for (low, high), count in zip(pairs, chart.counts, strict=True)
    ]
    trace = {
        "type": "bar", "x": [_number((low + high) / 2) for low, high in pairs], "y": list(chart.counts),
        "width": [high - low for low, high in pairs], "marker": {"color": LIGHT[0]},
        "hovertext": texts, "hoverinfo": "text",
    }  # fmt: skip
    y = _axis(chart.y, [0, *chart.counts]) | {"rangemode": "tozero"}
    return [trace], {"xaxis": _axis(chart.x, chart.edges) | {"showgrid": False}, "yaxis": y, "bargap": 0.04}


def _tree(chart: TreeChart) -> tuple[list[Part], Part]:
    found = places(chart.nodes)
    xs: list[Number] = []
    ys: list[Number] = []
    for node in chart.nodes:
        if node.parent is not None:
            (left, above), (right, below) = found[node.parent], found[node.name]
            xs += [left, (left + right) / 2, (left + right) / 2, right, None]
            ys += [above, above, below, below, None]
    edges = {
        "type": "scatter", "mode": "lines", "x": xs, "y": ys, "hoverinfo": "skip", "showlegend": False,
        "line": {"color": LIGHT_PAGE["edge"], "width": 1.2},
    }  # fmt: skip
    texts = [_node_text(node.label or node.name, node.note) for node in chart.nodes]
    colours = [LIGHT[0 if node.parent is None else 2] for node in chart.nodes]
    sides = ["middle right" if node.note else "top right" for node in chart.nodes]
    nodes = {
        "type": "scatter", "mode": "markers+text", "x": [found[node.name][0] for node in chart.nodes],
        "y": [found[node.name][1] for node in chart.nodes], "text": [text[0] for text in texts],
        "hovertext": [text[1] for text in texts], "hoverinfo": "text", "textposition": sides,
        "textfont": {"color": LIGHT_PAGE["ink"]}, "marker": {"color": colours, "size": 9}, "showlegend": False,
        "cliponaxis": False,
    }  # fmt: skip
    depths = max((depth for depth, _ in found.values()), default=0)
    rows = max((row for _, row in found.values()), default=0.0) + 1
    hidden = {"visible": False, "automargin": False}
    room = max((text_width(text[0].partition("<br>")[0]) for text in texts), default=0.0)
    layout = {
        "margin": {"l": 16, "r": min(room, 160) + 20, "t": 44, "b": 16},
        "xaxis": hidden | {"range": [-0.05, depths + 0.05] if depths else [-0.1, 1]},
        "yaxis": hidden | {"range": [rows - 0.4, -0.6]},
        "height": min(90 + 44 * math.ceil(rows), 1600),
        "hovermode": "closest",
    }
    return [edges, nodes], layout


def _node_text(label: str, note: str) -> tuple[str, str]:
    """The text beside a node, and the whole text."""
    short, whole = [_text(label, 150)], [_text(label, 600)]
    if note:
        short.append(f"<sub>{_text(note, 150)}</sub>")
        whole.append(_text(note, 600))
    return "<br>".join(short), "<br>".join(whole)


def _dendrogram(chart: Dendrogram) -> tuple[list[Part], Part]:
    order, found = brackets(chart)
    names: Mapping[int | None, str] = {None: "", **dict(enumerate(dict.fromkeys(chart.groups)))}
    data = []
    for group, name in names.items():
        xs: list[Number] = []
        ys: list[Number] = []
        for one in found:
            if one.group == group:
                xs += [one.heights[0], one.height, one.height, one.heights[1], None]
                ys += [one.rows[0], one.rows[0], one.rows[1], one.rows[1], None]
        colour = LIGHT_PAGE["edge"] if group is None else LIGHT[colour_of(group)]
        data.append({
            "type": "scatter", "mode": "lines", "x": xs or [None], "y": ys or [None], "name": _text(name),
            "line": {"color": colour, "width": 1.4, "dash": _dash(group or 0)}, "showlegend": group is not None,
            "hovertemplate": "%{x}<extra></extra>",
        })  # fmt: skip
    y = _named_axis(Axis(), [chart.labels[leaf] for leaf in order], 60, 120) | {"autorange": "reversed"}
    x = _axis(chart.x, [0, *(one.height for one in found)])
    x["range"] = [0, max((one.height for one in found), default=1.0) * 1.03 or 1.0]
    layout = {"xaxis": x, "yaxis": y, "height": _rows_height(len(order), 20), "hovermode": "closest"}
    return data, layout


_DRAWN: dict[type[Chart], Callable[[Any], tuple[list[Part], Part]]] = {
    LineChart: _lines,
    BarChart: _bars,
    HeatMap: _heat_map,
    Histogram: _histogram,
    Dendrogram: _dendrogram,
    TreeChart: _tree,
}
