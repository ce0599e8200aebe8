"""Bars, heat maps, histograms, trees and dendrograms, as SVG."""

from __future__ import annotations

from collections.abc import Sequence

from fedpkg.pictures.axes import Scale, number_text, scale
from fedpkg.pictures.canvas import Canvas, Frame, at, text_width, widest
from fedpkg.pictures.chart import (
    Axis,
    BarChart,
    Dendrogram,
    HeatMap,
    Histogram,
    TreeChart,
    binned_bars,
    binned_cells,
    finite,
)
from fedpkg.pictures.palette import colour_of, dash_of
from fedpkg.pictures.trees import brackets, places
from fedpkg.shown import shown

MOST_CELLS = 100  # of a heat map, each way
STRENGTHS = 40  # steps of a heat map's colour


def draw_bars(canvas: Canvas, chart: BarChart) -> None:
    chart = binned_bars(chart, (canvas.width - 80) // (3 if chart.stacked else 3 * max(1, len(chart.series))))
    entries = [(name, number, "box") for number, name in enumerate(chart.series)]
    top = canvas.legend(entries if len(entries) > 1 else [], canvas.title(chart.title)) + (22 if chart.y.label else 6)
    bottom = canvas.height - (44 if chart.x.label else 26)
    columns = list(zip(*chart.series.values(), strict=True))
    values = [sum(finite(c)) for c in columns] if chart.stacked else [v for c in columns for v in finite(c)]
    y = scale(chart.y, values, bottom, top, most=max(3, int(bottom - top) // 45), from_zero=True)
    frame = Frame(widest(y.texts) + 20, top, canvas.width - 16, bottom)
    each = (frame.right - frame.left) / max(1, len(chart.labels))
    middles = [frame.left + each * (number + 0.5) for number in range(len(chart.labels))]
    no_ticks = Scale(chart.x, 0, 1, frame.left, frame.right, (), ())
    canvas.axes(frame, no_ticks, y)
    canvas.labels_below(frame, [(m, shown(label)[:24]) for m, label in zip(middles, chart.labels, strict=True)])
    if not values:
        canvas.nothing(frame)
    for label, middle, column in zip(chart.labels, middles, columns, strict=False):
        _draw_group(canvas, chart, label, middle, column, y, each * (0.8 if each > 4 else 1))


def _draw_group(
    canvas: Canvas, chart: BarChart, label: str, middle: float, column: Sequence[float | None], y: Scale, width: float
) -> None:
    total, each = 0.0, width if chart.stacked else width / max(1, len(column))
    for number, (name, value) in enumerate(zip(chart.series, column, strict=True)):
        found = finite([value])
        if not found or not found[0]:
            continue
        begin, end = y.at(total), y.at(total + found[0])
        if begin is None or end is None:
            continue
        left = middle - width / 2 + (0 if chart.stacked else each * number)
        hover = f"{label}, {name}: {number_text(found[0], chart.y.kind)}" if len(chart.labels) <= 60 else ""
        canvas.box(left, min(begin, end), each, abs(end - begin), number, hover=hover)
        total += found[0] if chart.stacked else 0.0


def draw_heat_map(canvas: Canvas, chart: HeatMap) -> None:
    """Each cell's colour has the strength of its value; a cell without a value is empty. Few cells also have texts."""
    chart = binned_cells(chart, MOST_CELLS)
    top = canvas.title(chart.title)
    left = min(widest(map(shown, chart.rows)), canvas.width * 0.3) + 20
    high = max(4.0, min(26.0, (canvas.height - top - 110) / max(1, len(chart.rows))))
    found = finite([value for line in chart.values for value in line])
    low_value, high_value = chart.strengths()
    top = _draw_strengths(canvas, chart, low_value, high_value, top) + (26 if chart.y.label else 8)
    frame = Frame(left, top, canvas.width - 16, top + high * len(chart.rows))
    canvas.height = int(frame.bottom + (44 if chart.x.label else 26))
    wide = (frame.right - frame.left) / max(1, len(chart.columns))
    _draw_cells(canvas, chart, frame, wide, high, (low_value, (high_value - low_value) or 1.0))
    middles = [(frame.left + wide * (number + 0.5), shown(name)[:24]) for number, name in enumerate(chart.columns)]
    canvas.labels_below(frame, middles)
    every = max(1, -(-14 // int(high)))
    for number, name in enumerate(chart.rows):
        if number % every == 0:
            place = frame.top + high * (number + 0.5) + 4
            canvas.text(left - 7, place, name, look="q", anchor="end", room=left - 12)
    canvas.text(12, frame.top - 12, chart.y.label, look="q", room=canvas.width - 24)
    canvas.text(frame.right, frame.bottom + 34, chart.x.label, look="q", anchor="end", room=canvas.width - 24)
    if not found:
        canvas.nothing(frame)


def _draw_strengths(canvas: Canvas, chart: HeatMap, low: float, high: float, top: float) -> float:
    """The legend of a heat map: what its strongest and its weakest colour mean."""
    texts = [shown(chart.value.label), number_text(low, chart.value.kind), number_text(high, chart.value.kind)]
    x = 12.0
    canvas.text(x, top + 12, texts[0], look="q", room=canvas.width * 0.5)
    x += min(text_width(texts[0]), canvas.width * 0.5) + (10 if texts[0] else 0)
    canvas.text(x, top + 12, texts[1], look="q")
    x += text_width(texts[1]) + 8
    for number in range(10):
        canvas.rect(x + 8 * number, top + 3, 8, 11, "f0", more=f' fill-opacity="{(number + 0.5) / 10:g}"')
    canvas.text(x + 88, top + 12, texts[2], look="q")
    return top + 18


def _draw_cells(
    canvas: Canvas, chart: HeatMap, frame: Frame, wide: float, high: float, value_range: tuple[float, float]
) -> None:
    by_strength: dict[int, list[str]] = {}
    with_texts = len(chart.rows) * len(chart.columns) <= 300 and wide >= 34 and high >= 14
    gap = 1.0 if wide > 6 and high > 6 else 0.0
    cell = f"h{at(wide - gap)}v{at(high - gap)}h{at(gap - wide)}z"
    texts = []
    for row, line in enumerate(chart.values):
        for column, value in enumerate(line):
            for known in finite([value]):
                strength = (known - value_range[0]) / value_range[1]
                x, y = frame.left + wide * column, frame.top + high * row
                by_strength.setdefault(round(strength * STRENGTHS), []).append(f"M{at(x)} {at(y)}{cell}")
                texts.append((x + wide / 2, y + high / 2 + 4, known, strength))
    canvas.path(f"M{at(frame.left)} {at(frame.top)}H{at(frame.right)}V{at(frame.bottom)}H{at(frame.left)}z", "g")
    for step, commands in sorted(by_strength.items()):
        if step:
            canvas.path("".join(commands), "f0", more=f' fill-opacity="{step / STRENGTHS:g}"')
    for x, y, value, strength in texts if with_texts else ():
        look = "s on" if strength > 0.6 else "s"
        canvas.text(x, y, number_text(value, chart.value.kind), look=look, anchor="middle", room=wide, size=11)


def draw_histogram(canvas: Canvas, chart: Histogram) -> None:
    top = canvas.title(chart.title) + (22 if chart.y.label else 6)
    bottom = canvas.height - (44 if chart.x.label else 26)
    y = scale(chart.y, chart.counts, bottom, top, most=max(3, int(bottom - top) // 45), from_zero=True)
    frame = Frame(widest(y.texts) + 20, top, canvas.width - 16, bottom)
    x = scale(chart.x, chart.edges, frame.left, frame.right, most=max(3, int(frame.right - frame.left) // 80))
    canvas.axes(frame, x, y)
    for low, high, count in zip(chart.edges, chart.edges[1:], chart.counts, strict=False):
        begin, end, height = x.at(low), x.at(high), y.at(count)
        if begin is None or end is None or height is None or not count:
            continue
        hover = f"{number_text(low, chart.x.kind)} to {number_text(high, chart.x.kind)}: {number_text(count)}"
        canvas.rect(begin + 0.5, height, max(0.5, end - begin - 1), bottom - height, "f0", hover=hover)


def draw_tree(canvas: Canvas, chart: TreeChart) -> None:
    top = canvas.title(chart.title) + 8
    found = places(chart.nodes)
    depths = max((depth for depth, _ in found.values()), default=0) + 1
    rows = max((row for _, row in found.values()), default=0.0) + 1
    has_notes = any(node.note for node in chart.nodes)
    step = max(38.0 if has_notes else 24.0, min(60.0, (canvas.height - top - 10) / rows))
    wide = (canvas.width - 24) / depths
    canvas.height = int(top + step * rows + 10)
    spots = {name: (12 + 5 + wide * depth, top + step * (row + 0.5)) for name, (depth, row) in found.items()}
    for node in chart.nodes:
        if node.parent is not None:
            (x1, y1), (x2, y2) = spots[node.parent], spots[node.name]
            canvas.path(
                f"M{at(x1)} {at(y1)}C{at(x2 - 14)} {at(y1)} {at(x2 - wide * 0.5)} {at(y2)} {at(x2)} {at(y2)}", "e"
            )
    for node in chart.nodes:
        x, y = spots[node.name]
        is_root = node.parent is None
        canvas.parts.append(f'<circle cx="{at(x)}" cy="{at(y)}" r="4.5" class="f{0 if is_root else 2}"/>')
        canvas.text(x + 9, y - 5, node.label or node.name, look="h", room=wide - 16)
        if node.note:
            canvas.text(x + 9, y + 14, node.note, look="q s h", room=wide - 16, size=11)


def draw_dendrogram(canvas: Canvas, chart: Dendrogram) -> None:
    """Leaves on the left; lines within a group have its colour."""
    order, found = brackets(chart)
    names = list(dict.fromkeys(chart.groups))
    entries = [(name, number, "line") for number, name in enumerate(names)]
    top = canvas.legend(entries if len(entries) > 1 else [], canvas.title(chart.title)) + 6
    step = max(5.0, min(22.0, (canvas.height - top - 44) / max(1, len(order))))
    left = min(widest(map(shown, chart.labels)), canvas.width * 0.3) + 20
    frame = Frame(left, top, canvas.width - 16, top + step * len(order))
    canvas.height = int(frame.bottom + (44 if chart.x.label else 26))
    most = max(3, int(frame.right - frame.left) // 80)
    x = scale(chart.x, [one.height for one in found], frame.left, frame.right, most=most, from_zero=True)
    canvas.axes(frame, x, Scale(Axis(), 0, 1, frame.bottom, frame.top, (), ()))
    every = max(1, -(-14 // int(step)))
    for row, leaf in enumerate(order):
        if row % every == 0:
            place = frame.top + step * (row + 0.5) + 4
            canvas.text(left - 7, place, chart.labels[leaf], look="q", anchor="end", room=left - 12)
    for one in found:
        (y1, y2), spots = (frame.top + step * (row + 0.5) for row in one.rows), [*one.heights, one.height]
        x1, x2, end = (x.at(height) or frame.left for height in spots)
        look, dash = ("e", "") if one.group is None else (f"l l{colour_of(one.group)}", dash_of(one.group))
        canvas.path(f"M{at(x1)} {at(y1)}H{at(end)}V{at(y2)}H{at(x2)}", look, dash=dash)
