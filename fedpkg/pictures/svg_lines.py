"""Curves with their bands, as SVG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fedpkg.pictures.axes import Scale, scale
from fedpkg.pictures.canvas import Canvas, Frame, at, widest
from fedpkg.pictures.chart import Band, Curve, LineChart, Number, finite
from fedpkg.pictures.palette import colour_of, dash_of


def draw_lines(canvas: Canvas, chart: LineChart) -> None:
    """Bands first, so that no band hides a curve."""
    areas: dict[str, tuple[str, int, str]] = {}
    for number, curve in enumerate(chart.curves):
        for times, band in enumerate(curve.bands):
            areas.setdefault(band.name, (band.name, number, "area" * (times + 1)))
    areas.pop("", None)
    entries = [(curve.name, number, "line") for number, curve in enumerate(chart.curves)]
    entries = [*(entries if len(entries) > 1 or areas or chart.faint else []), *areas.values()]
    entries += [(chart.faint_name, 0, "faint")] if chart.faint else []
    top = canvas.legend(entries, canvas.title(chart.title)) + (22 if chart.y.label else 6)
    bottom = canvas.height - (44 if chart.x.label else 26)
    everything = [*chart.faint, *chart.curves]
    ys = [value for curve in everything for value in _drawn_values(curve)]
    y = scale(chart.y, ys, bottom, top, most=max(3, int(bottom - top) // 45))
    frame = Frame(widest(y.texts) + 20, top, canvas.width - 16, bottom)
    xs = [value for curve in everything for value in finite(curve.xs)]
    x = scale(chart.x, xs, frame.left, frame.right, most=max(3, int(frame.right - frame.left) // 80))
    canvas.axes(frame, x, y)
    if not ys or not xs:
        canvas.nothing(frame)
        return
    for curve in chart.faint:
        pieces = map(thinned, _pieces(_placed(curve.xs, curve.ys, x, y)))
        canvas.path("".join(map(_line, pieces)), "l l0 w")
    for number, curve in enumerate(chart.curves):
        for band in curve.bands:
            canvas.path(_area(curve.xs, band, x, y), f"b f{colour_of(number)}")
    for number, curve in enumerate(chart.curves):
        _draw_curve(canvas, number, curve, x, y)


def _drawn_values(curve: Curve) -> Iterator[float]:
    yield from finite(curve.ys)
    for band in curve.bands:
        yield from finite(band.low)
        yield from finite(band.high)


def _draw_curve(canvas: Canvas, number: int, curve: Curve, x: Scale, y: Scale) -> None:
    pieces = list(_pieces(_placed(curve.xs, curve.ys, x, y)))
    lines = [thinned(piece) for piece in pieces if len(piece) > 1]
    canvas.path("".join(_line(piece) for piece in lines), f"l l{colour_of(number)}", dash=dash_of(number))
    few = sum(map(len, pieces)) <= 30
    for piece in pieces:
        for px, py in piece if few or len(piece) == 1 else ():
            canvas.parts.append(f'<circle cx="{at(px)}" cy="{at(py)}" r="2.4" class="f{colour_of(number)}"/>')


def _placed(xs: Sequence[Number], ys: Sequence[Number], x: Scale, y: Scale) -> Iterator[tuple[float, float] | None]:
    for one, other in zip(xs, ys, strict=True):
        px = None if one is None else x.at(one)
        py = None if other is None else y.at(other)
        yield None if px is None or py is None else (px, py)


def _pieces(points: Iterator[tuple[float, float] | None]) -> Iterator[list[tuple[float, float]]]:
    piece: list[tuple[float, float]] = []
    for point in points:
        if point is not None:
            piece.append(point)
        elif piece:
            yield piece
            piece = []
    if piece:
        yield piece


def thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points, at most four for each pixel column: the first, the lowest, the highest and the last."""
    return [points[number] for number in kept_of(points)]


def kept_of(points: Sequence[tuple[float, float]]) -> Sequence[int]:
    """The numbers of the points that `thinned` keeps."""
    if len(points) < 4 * (abs(points[-1][0] - points[0][0]) + 2):
        return range(len(points))
    columns: dict[int, list[int]] = {}
    for number, (px, _) in enumerate(points):
        columns.setdefault(int(px), []).append(number)
    kept = set()
    for numbers in columns.values():
        by_height = sorted(numbers, key=lambda number: points[number][1])
        kept |= {numbers[0], numbers[-1], by_height[0], by_height[-1]}
    return sorted(kept)


def _line(points: list[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{at(px)} {at(py)}" for px, py in points)


def _area(xs: Sequence[Number], band: Band, x: Scale, y: Scale) -> str:
    low = list(_placed(xs, band.low, x, y))
    high = list(_placed(xs, band.high, x, y))
    both = iter([None if a is None or b is None else (*a, b[1]) for a, b in zip(low, high, strict=True)])
    commands = []
    for piece in _pieces(both):  # type: ignore[arg-type]  # three numbers a point
        lower = thinned([(px, a) for px, a, _ in piece])  # type: ignore[misc]
        upper = thinned([(px, b) for px, _, b in piece])  # type: ignore[misc]
        commands.append(_line(lower) + "L" + _line(upper[::-1])[1:] + "z")
    return "".join(commands)
