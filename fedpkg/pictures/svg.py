"""Charts as static SVG: no script, no file of fonts, light and dark by the reader's setting, readable when printed."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import Any

from fedpkg.pictures.canvas import Canvas
from fedpkg.pictures.chart import BarChart, Chart, Dendrogram, HeatMap, Histogram, LineChart, TreeChart
from fedpkg.pictures.palette import style
from fedpkg.pictures.svg_lines import draw_lines
from fedpkg.pictures.svg_marks import draw_bars, draw_dendrogram, draw_heat_map, draw_histogram, draw_tree
from fedpkg.pictures.words import described

_DRAWN: dict[type[Chart], Callable[[Canvas, Any], None]] = {
    LineChart: draw_lines,
    BarChart: draw_bars,
    HeatMap: draw_heat_map,
    Histogram: draw_histogram,
    Dendrogram: draw_dendrogram,
    TreeChart: draw_tree,
}


def to_svg(chart: Chart, *, width: int = 640, height: int = 360, standalone: bool = True) -> str:
    """The chart as an SVG element, also a whole file.

    Args:
        width: in pixels; texts have the same size in every width.
        height: in pixels; a heat map, a tree and a dendrogram may be higher, as their rows need.
        standalone: has its style sheet. In a page one style sheet serves all charts (`palette.style`).
    """
    canvas = Canvas(width, height)
    _DRAWN[type(chart)](canvas, chart)
    name = "fp" + hashlib.sha256(repr((chart, width)).encode()).hexdigest()[:10]
    return canvas.svg(name, chart.title, chart.about or described(chart), _style() if standalone else "")


_style = functools.cache(style)
