"""Charts by matplotlib (extra ``[plots]``): a figure, and PNG, SVG and PDF files."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fedpkg.errors import ConfigError
from fedpkg.pictures.axes import bytes_text, number_text
from fedpkg.pictures.chart import (
    Axis,
    BarChart,
    Chart,
    Dendrogram,
    HeatMap,
    Histogram,
    LineChart,
    Number,
    TreeChart,
    binned_bars,
)
from fedpkg.pictures.palette import LIGHT, colour_of, hatch_of
from fedpkg.pictures.trees import brackets, places
from fedpkg.shown import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEGEND_MOST = 20
MOST_BARS = 400
_DASHES = ("-", "--", ":", "-.")


def to_figure(charts: Sequence[Chart], *, width: float = 6.4, height: float = 3.8) -> Figure:
    """A figure with these charts, two side by side. It shows itself in a notebook, whatever the backend is.

    Args:
        width: of one chart, in inches.
        height: of one chart, in inches.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    with _settings():
        columns = min(2, len(charts))
        rows = -(-len(charts) // columns)
        figure = _empty_figure(width * columns, height * rows)
        for number, chart in enumerate(charts):
            axes = figure.add_subplot(rows, columns, number + 1)
            axes.set_title(shown(chart.title), loc="left", fontsize=11, fontweight="bold", wrap=True)
            _DRAWN[type(chart)](axes, chart)
        return figure


def to_bytes(charts: Sequence[Chart], suffix: str, *, dpi: int = 150) -> bytes:
    """The charts as a file of kind ``.png``, ``.svg`` or ``.pdf``; the same charts give the same bytes.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    file = io.BytesIO()
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix)
    with _settings(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # a box stands for what the font does not have
        warnings.filterwarnings("ignore", category=RuntimeWarning)  # ticks of values near the largest float
        to_figure(charts).savefig(file, format=suffix[1:], dpi=dpi, metadata=metadata)
    return file.getvalue()


@contextmanager
def _settings() -> Iterator[None]:
    """Texts of clients are no formulas; equal charts are equal files; texts in an SVG stay texts."""
    try:
        import matplotlib
        import matplotlib.figure
    except ImportError as error:
        raise ConfigError("such a picture needs matplotlib", hint="pip install 'fedpkg[plots]'") from error
    wanted: Any = {"text.parse_math": False, "text.usetex": False, "svg.hashsalt": "fedpkg", "svg.fonttype": "none"}
    with matplotlib.rc_context(wanted):
        yield


def _empty_figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    class Picture(Figure):
        def _repr_png_(self) -> bytes:
            picture = io.BytesIO()
            self.savefig(picture, format="png", dpi=100)
            return picture.getvalue()

    return Picture(figsize=(width, height), layout="constrained")


def _lines(axes: Axes, chart: LineChart) -> None:
    named: set[str] = set()
    for number, curve in enumerate(chart.faint):
        label = _label(chart.faint_name) if not number else None
        axes.plot(_floats(curve.xs), _floats(curve.ys), color=LIGHT[0], alpha=0.25, linewidth=0.7, label=label)
    for number, curve in enumerate(chart.curves):
        colour, xs = LIGHT[colour_of(number)], _floats(curve.xs)
        for band in curve.bands:
            name = shown(band.name) if band.name and band.name not in named else None
            named.add(band.name)
            low, high = _floats(band.low), _floats(band.high)
            axes.fill_between(xs, low, high, color=colour, alpha=0.16, linewidth=0, label=name)
        marker = "." if len(xs) <= 30 else None
        dash = _DASHES[number // len(LIGHT) % len(_DASHES)]
        axes.plot(xs, _floats(curve.ys), color=colour, linestyle=dash, marker=marker, label=_label(curve.name))
    if len(chart.curves) > 1 or chart.faint or named - {""}:
        _legend(axes)
    _dress(axes, chart.x, chart.y)


def _bars(axes: Axes, chart: BarChart) -> None:
    import numpy as np

    chart = binned_bars(chart, MOST_BARS)
    places_of_labels = np.arange(len(chart.labels))
    below, width = np.zeros(len(chart.labels)), 0.8 if chart.stacked else 0.8 / max(1, len(chart.series))
    for number, (name, values) in enumerate(chart.series.items()):
        heights = np.nan_to_num(np.array(_floats(values)))
        shift = 0.0 if chart.stacked else width * (number - (len(chart.series) - 1) / 2)
        bottom = below if chart.stacked else None
        axes.bar(
            places_of_labels + shift, heights, width, bottom=bottom, color=LIGHT[colour_of(number)], label=_label(name),
            hatch=hatch_of(number) * 3, edgecolor="white", linewidth=0,
        )  # fmt: skip
        below = below + heights
    if len(chart.series) > 1:
        _legend(axes)
    _dress(axes, chart.x, chart.y)
    _name_ticks(axes.xaxis, chart.labels, most=12)


def _heat_map(axes: Axes, chart: HeatMap) -> None:
    values = [_floats(line) for line in chart.values] or [[math.nan]]
    low, high = chart.strengths()
    image = axes.imshow(values, aspect="auto", cmap="Blues", interpolation="nearest", vmin=low, vmax=high)
    bar = axes.figure.colorbar(image, ax=axes)
    bar.set_label(shown(chart.value.label))
    _dress(axes, chart.x, chart.y)
    axes.grid(False)
    _name_ticks(axes.xaxis, chart.columns, most=12)
    _name_ticks(axes.yaxis, chart.rows, most=20)


def _legend(axes: Axes) -> None:
    """Beside the axes, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    if len(handles) > LEGEND_MOST:
        labels[LEGEND_MOST - 1] = f"… and {len(handles) - LEGEND_MOST} more"
    axes.legend(
        handles[:LEGEND_MOST], labels[:LEGEND_MOST], fontsize="small", frameon=False, loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
    )  # fmt: skip


def _histogram(axes: Axes, chart: Histogram) -> None:
    widths = [high - low for low, high in zip(chart.edges, chart.edges[1:], strict=False)]
    axes.bar(list(chart.edges[:-1]), list(chart.counts), widths, align="edge", color=LIGHT[0], edgecolor="white")
    _dress(axes, chart.x, chart.y)


def _tree(axes: Axes, chart: TreeChart) -> None:
    found = places(chart.nodes)
    for node in chart.nodes:
        depth, row = found[node.name]
        if node.parent is not None:
            above = found[node.parent]
            middle = (above[0] + depth) / 2
            corners = [-above[1], -above[1], -row, -row]
            axes.plot([above[0], middle, middle, depth], corners, color="#7b8794", linewidth=1, zorder=1)
        label = "\n".join(filter(None, [node.label or node.name, node.note]))
        axes.plot([depth], [-row], marker="o", color=LIGHT[0 if node.parent is None else 2], zorder=2)
        text = axes.annotate(shown_lines_of(label), (depth, -row), (6, 5), textcoords="offset points", fontsize="small")
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.5})  # lines pass below it
    axes.margins(x=0.2, y=0.2)
    axes.axis("off")


def _dendrogram(axes: Axes, chart: Dendrogram) -> None:
    order, found = brackets(chart)
    names: dict[int, str] = dict(enumerate(dict.fromkeys(chart.groups)))
    for one in found:
        colour = "#7b8794" if one.group is None else LIGHT[colour_of(one.group)]
        dash = "-" if one.group is None else _DASHES[one.group // len(LIGHT) % len(_DASHES)]
        xs = [one.heights[0], one.height, one.height, one.heights[1]]
        ys = [one.rows[0], one.rows[0], one.rows[1], one.rows[1]]
        axes.plot(xs, ys, color=colour, linestyle=dash, linewidth=1.2)
    for number, name in names.items() if len(names) > 1 else ():
        axes.plot([], [], color=LIGHT[colour_of(number)], label=_label(name))
    if len(names) > 1:
        _legend(axes)
    _dress(axes, chart.x, Axis())
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    _name_ticks(axes.yaxis, [chart.labels[leaf] for leaf in order], most=30)


def shown_lines_of(label: str) -> str:
    """The lines of a label, each shown by itself."""
    return "\n".join(map(shown, label.split("\n")))


_DRAWN: dict[type[Chart], Callable[[Any, Any], None]] = {
    LineChart: _lines,
    BarChart: _bars,
    HeatMap: _heat_map,
    Histogram: _histogram,
    Dendrogram: _dendrogram,
    TreeChart: _tree,
}


def _dress(axes: Axes, x: Axis, y: Axis) -> None:
    from matplotlib.ticker import MaxNLocator

    for axis, spec, name in ((axes.xaxis, x, "x"), (axes.yaxis, y, "y")):
        axis.set_label_text(shown(spec.label))
        if spec.log:
            axes.set(**{f"{name}scale": "log"})
            axis.set_major_formatter(lambda value, _: number_text(value))
            axis.set_minor_formatter(lambda value, _: "")
        elif spec.kind == "whole":
            axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
        if spec.kind == "bytes":
            axis.set_major_formatter(lambda value, _: bytes_text(value))
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _name_ticks(axis: Any, names: Sequence[str], *, most: int) -> None:
    """Names at the places 0, 1, 2 …, at most ``most`` of them."""
    numbers = range(0, len(names), max(1, -(-len(names) // most)))
    axis.set_ticks(list(numbers), [shown(names[number])[:24] for number in numbers])
    if axis.axis_name == "x" and sum(len(names[number]) for number in numbers) > 60:
        axis.set_tick_params(rotation=30)


def _label(name: str) -> str:
    return "\u200b" + shown(name) if name.startswith("_") else shown(name)  # matplotlib hides labels that begin so


def _floats(values: Sequence[Number]) -> list[float]:
    return [math.nan if value is None or not math.isfinite(value) else float(value) for value in values]
