"""A chart of `pictures/` in a page: a static SVG, what plotly makes of it in a browser, and its numbers as a table."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from markupsafe import Markup

from fedpkg.dashboard.asked import DOWNLOAD, Asked
from fedpkg.dashboard.tables import Column, Kind, Row, Table
from fedpkg.pictures.chart import Axis, BarChart, Chart, Dendrogram, HeatMap, Histogram, LineChart, Number, TreeChart
from fedpkg.pictures.palette import colour_of, dash_of
from fedpkg.pictures.svg import to_svg
from fedpkg.pictures.words import described
from fedpkg.shown import shown

_KINDS: dict[str, Kind] = {"number": "number", "whole": "whole", "bytes": "bytes"}


def figure(asked: Asked, name: str, chart: Chart) -> Markup:
    """The chart as a ``<figure>``; in a live region without the SVG, as the page's script has drawn it already."""
    wide = narrow = ""
    if not asked.is_live or not is_drawn_by_plotly(chart):
        wide = _svg(chart, 640, 340, "wide-one")
        narrow = _svg(chart, 350, 290, "narrow")
    links = Markup(" ").join(
        Markup('<a href="{}" download>{}</a>').format(asked.url(**{DOWNLOAD: f"{name}.{form}"}), form.upper())
        for form in ("csv", "json", "svg")
    )
    data = Markup("")
    if is_drawn_by_plotly(chart):  # a block of data: no browser runs it, and "<" cannot end it
        text = json.dumps(plotly_figure(chart), separators=(",", ":")).replace("<", "\\u003c")
        data = Markup('<script type="application/json">{}</script>').format(Markup(text))
    return Markup(
        '<figure class="plot" id="plot-{}" data-plot="{}" aria-label="{}">{}{}{}'
        '<figcaption class="exports">{}</figcaption></figure>'
    ).format(name, name, shown(chart.title), Markup(wide), Markup(narrow), data, links)


def _svg(chart: Chart, width: int, height: int, look: str) -> str:
    drawn = to_svg(chart, width=width, height=height, standalone=False)
    return drawn.replace('class="fp"', f'class="fp {look}"', 1)


# ---- the numbers


def chart_table(name: str, chart: Chart) -> Table:
    """The chart's numbers: what people read who cannot see it, and what its files have."""
    columns, rows = _TABLES[type(chart)](chart)
    found = list(rows)
    return Table(name, chart.title, columns, found, len(found), lambda: found)


def _kind(axis: Axis) -> Kind:
    return _KINDS[axis.kind]


def _of_lines(chart: LineChart) -> tuple[list[Column], Iterator[Row]]:
    columns = [
        Column("curve", "curve"),
        Column("x", chart.x.label or "x", _kind(chart.x)),
        Column("y", chart.y.label or "value", _kind(chart.y)),
    ]
    bands = list(dict.fromkeys(band.name for curve in chart.curves for band in curve.bands))
    for number, band in enumerate(bands):
        columns += [Column(f"low{number}", f"{band}, low", _kind(chart.y))]
        columns += [Column(f"high{number}", f"{band}, high", _kind(chart.y))]

    def rows() -> Iterator[Row]:
        for curve in chart.curves:
            for at, (x, y) in enumerate(zip(curve.xs, curve.ys, strict=True)):
                row: dict[str, Any] = {"curve": curve.name, "x": x, "y": y}
                for band in curve.bands:
                    number = bands.index(band.name)
                    row |= {f"low{number}": band.low[at], f"high{number}": band.high[at]}
                yield row

    return columns, rows()


def _of_bars(chart: BarChart) -> tuple[list[Column], Iterator[Row]]:
    columns = [Column("label", chart.x.label or "label")]
    columns += [Column(f"s{number}", name, _kind(chart.y)) for number, name in enumerate(chart.series)]
    series = list(chart.series.values())
    rows = (
        {"label": label, **{f"s{n}": one[at] for n, one in enumerate(series)}} for at, label in enumerate(chart.labels)
    )
    return columns, rows


def _of_heat_map(chart: HeatMap) -> tuple[list[Column], Iterator[Row]]:
    columns = [Column("row", chart.y.label or "row")]
    columns += [Column(f"c{number}", name, _kind(chart.value)) for number, name in enumerate(chart.columns)]
    pairs = zip(chart.rows, chart.values, strict=True)
    return columns, ({"row": name, **{f"c{n}": value for n, value in enumerate(line)}} for name, line in pairs)


def _of_histogram(chart: Histogram) -> tuple[list[Column], Iterator[Row]]:
    columns = [
        Column("low", "from", _kind(chart.x)),
        Column("high", "to", _kind(chart.x)),
        Column("count", "count", "whole"),
    ]
    ends = zip(chart.edges, chart.edges[1:], chart.counts, strict=False)
    return columns, ({"low": low, "high": high, "count": count} for low, high, count in ends)


def _of_tree(chart: TreeChart) -> tuple[list[Column], Iterator[Row]]:
    columns = [Column("name", "node"), Column("parent", "below"), Column("note", "note")]
    return columns, ({"name": n.label or n.name, "parent": n.parent, "note": n.note} for n in chart.nodes)


def _of_dendrogram(chart: Dendrogram) -> tuple[list[Column], Iterator[Row]]:
    columns = [Column("label", "leaf"), Column("group", "group")]
    return columns, ({"label": a, "group": b} for a, b in zip(chart.labels, chart.groups, strict=True))


_TABLES: dict[type[Chart], Callable[[Any], tuple[list[Column], Iterator[Row]]]] = {
    LineChart: _of_lines,
    BarChart: _of_bars,
    HeatMap: _of_heat_map,
    Histogram: _of_histogram,
    TreeChart: _of_tree,
    Dendrogram: _of_dendrogram,
}


# ---- plotly


def is_drawn_by_plotly(chart: Chart) -> bool:
    """Trees and dendrograms stay as they are drawn: they have nothing to zoom into."""
    return not isinstance(chart, (TreeChart, Dendrogram))


def plotly_figure(chart: Chart) -> dict[str, Any]:
    """The chart for plotly.js. Colours are numbers of the palette, which the page's script fills in, light or dark."""
    traces = _TRACES[type(chart)](chart)
    x, y = getattr(chart, "x", Axis()), getattr(chart, "y", Axis())
    return {
        "title": _text(chart.title),
        "about": _text(chart.about or described(chart)),
        "data": traces,
        "x": _axis(x),
        "y": _axis(y),
        "stacked": isinstance(chart, BarChart) and chart.stacked,
    }


def _axis(axis: Axis) -> dict[str, Any]:
    return {"label": _text(axis.label), "kind": axis.kind, "log": axis.log}


def _text(text: str) -> str:
    """A text for plotly, which reads a few tags of HTML in labels: no text of a client is markup."""
    return shown(text).replace("&", "&amp;").replace("<", "&lt;")


def _numbers(values: Sequence[Number]) -> list[float | None]:
    """Values of JSON; six digits are more than a screen shows."""
    return [None if value is None or not math.isfinite(value) else _short(value) for value in values]


def _short(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.6g}")


def _line_traces(chart: LineChart) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for number, curve in enumerate(chart.curves):
        look = {"colour": colour_of(number), "name": _text(curve.name), "group": number}
        for band in curve.bands:
            found.append(
                {
                    "kind": "band",
                    "x": _numbers(curve.xs),
                    "low": _numbers(band.low),
                    "high": _numbers(band.high),
                    **look,
                    "name": _text(band.name),
                }
            )
        dash = dash_of(number).replace(" ", "px,") + "px" if dash_of(number) else "solid"
        found.append({"kind": "line", "x": _numbers(curve.xs), "y": _numbers(curve.ys), "dash": dash, **look})
    return found


def _bar_traces(chart: BarChart) -> list[dict[str, Any]]:
    labels = [_text(label) for label in chart.labels]
    return [
        {"kind": "bar", "x": labels, "y": _numbers(values), "name": _text(name), "colour": colour_of(number)}
        for number, (name, values) in enumerate(chart.series.items())
    ]


def _heat_traces(chart: HeatMap) -> list[dict[str, Any]]:
    return [
        {
            "kind": "heat",
            "x": [_text(name) for name in chart.columns],
            "y": [_text(name) for name in chart.rows],
            "z": [_numbers(line) for line in chart.values],
            "name": _text(chart.value.label),
            "colour": 0,
        }
    ]


def _histogram_traces(chart: Histogram) -> list[dict[str, Any]]:
    middles = [(low + high) / 2 for low, high in zip(chart.edges, chart.edges[1:], strict=False)]
    widths = [high - low for low, high in zip(chart.edges, chart.edges[1:], strict=False)]
    return [
        {
            "kind": "bar",
            "x": _numbers(middles),
            "y": _numbers(chart.counts),
            "width": _numbers(widths),
            "name": "count",
            "colour": 0,
        }
    ]


_TRACES: dict[type[Chart], Callable[[Any], list[dict[str, Any]]]] = {
    LineChart: _line_traces,
    BarChart: _bar_traces,
    HeatMap: _heat_traces,
    Histogram: _histogram_traces,
}
