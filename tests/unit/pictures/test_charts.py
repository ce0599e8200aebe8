"""Charts are data with checks; their SVG is well-formed, has every part, and takes any text and any number."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpkg.pictures import html
from fedpkg.pictures.axes import bytes_text, nice_step, number_text, scale
from fedpkg.pictures.chart import (
    Axis,
    BarChart,
    Chart,
    Curve,
    HeatMap,
    LineChart,
    Node,
    TreeChart,
    binned_bars,
    binned_cells,
    histogram,
)
from fedpkg.pictures.palette import DARK, LIGHT, style
from fedpkg.pictures.svg import to_svg
from fedpkg.pictures.svg_lines import thinned
from fedpkg.pictures.trees import places
from tests.unit.pictures.kinds import HOSTILE, every_kind

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("chart", every_kind(), ids=lambda chart: type(chart).__name__)
@pytest.mark.parametrize("width", [350, 640])
def test_every_kind_is_well_formed_svg_with_title_and_description(chart: Chart, width: int) -> None:
    drawn = ElementTree.fromstring(to_svg(chart, width=width))
    title, about = drawn.find(f"{SVG}title"), drawn.find(f"{SVG}desc")
    assert title is not None and title.text == "a"
    assert about is not None and about.text
    assert drawn.get("aria-labelledby") == f"{title.get('id')} {about.get('id')}" and drawn.get("role") == "img"
    assert len(list(drawn)) > 6, "more than title, description, style and paper"


@pytest.mark.parametrize("chart", every_kind(HOSTILE), ids=lambda chart: type(chart).__name__)
def test_texts_of_clients_stay_texts(chart: Chart) -> None:
    text = to_svg(chart)
    drawn = ElementTree.fromstring(text)
    assert not list(drawn.iter(f"{SVG}script")) and "<script" not in text
    assert "\x1b" not in text and "\u202e" not in text
    assert "alert(1)" in "".join(drawn.itertext())


@settings(max_examples=40)
@given(st.lists(st.one_of(st.none(), st.floats(), st.integers()), min_size=1, max_size=30), st.booleans())
def test_any_numbers_give_coordinates_inside_the_picture(values: list[float | None], log: bool) -> None:
    chart = LineChart(title="", curves=[Curve("", range(len(values)), values)], y=Axis("", log=log))
    drawn = ElementTree.fromstring(to_svg(chart, width=640, height=360))
    for path in drawn.iter(f"{SVG}path"):
        if "l0" in path.get("class", ""):
            numbers = [float(number) for number in re.findall(r"-?[\d.]+", path.get("d", ""))]
            assert all(-1 <= number <= 641 for number in numbers)
    for circle in drawn.iter(f"{SVG}circle"):
        assert -1 <= float(circle.get("cy", "nan")) <= 361


@given(st.floats(-1e12, 1e12), st.floats(1e-9, 1e12), st.sampled_from(["number", "whole", "bytes"]))
def test_ticks_are_evenly_spaced_and_their_texts_differ(low: float, spread: float, kind: str) -> None:
    made = scale(Axis("", kind), [low, low + spread], 0, 500)  # type: ignore[arg-type]
    steps = [b - a for a, b in pairwise(made.ticks)]
    assert all(math.isclose(step, steps[0], rel_tol=1e-3) for step in steps) or spread < abs(low) * 1e-9
    assert len(made.ticks) <= 14
    if kind == "whole":
        assert all(tick == round(tick) for tick in made.ticks)


def test_steps_are_nice_numbers() -> None:
    assert [nice_step(rough) for rough in (0.011, 0.2, 0.23, 3, 70)] == pytest.approx([0.02, 0.2, 0.25, 5, 100])
    assert nice_step(2.1, whole=True) == 5


def test_numbers_are_short_texts() -> None:
    assert [number_text(v) for v in (0.912345, 12300, 1.5e9, -0.5, math.nan)] == [
        "0.9123", "12\u202f300", "1.5e+09", "−0.5", "–"
    ]  # fmt: skip
    assert [bytes_text(value) for value in (0, 812, 2.5e8, 1e12, 3e20)] == [
        "0 B",
        "812 B",
        "250 MB",
        "1 TB",
        "3e+05 PB",
    ]


def test_a_long_curve_keeps_its_extremes_and_few_points() -> None:
    points = [(number / 1000, 100.0 if number == 54321 else 0.0) for number in range(100_000)]
    kept = thinned(points)
    assert len(kept) <= 4 * 101 and (54.321, 100.0) in kept
    assert kept[0] == points[0] and kept[-1] == points[-1]


def test_many_clients_are_binned_and_the_axis_says_so() -> None:
    names = [f"client-{number}" for number in range(1000)]
    bars = binned_bars(BarChart(title="", labels=names, series={"a": [2] * 1000}, x=Axis("client")), 100)
    assert (
        len(bars.labels) == 100 and set(bars.series["a"]) == {2} and bars.x.label == "client (means of 10 neighbours)"
    )
    heat = binned_cells(HeatMap(title="", rows=names, columns=["x"], values=[[3]] * 1000, y=Axis("client")), 100)
    assert heat.values == [[3]] * 100 and "10 neighbours" in heat.y.label
    assert len(to_svg(HeatMap(title="", rows=names, columns=names[:50], values=[[1] * 50] * 1000))) < 200_000


def test_charts_refuse_data_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="different lengths"):
        Curve("a", [1, 2], [1])
    with pytest.raises(ValueError, match="1 values for 2 labels"):
        BarChart(title="", labels=["x", "y"], series={"a": [1]})
    with pytest.raises(ValueError, match="cannot be stacked"):
        BarChart(title="", labels=["x"], series={"a": [-1]}, stacked=True)
    with pytest.raises(ValueError, match="2 × 1"):
        HeatMap(title="", rows=["a", "b"], columns=["c"], values=[[1]])
    for nodes in ([Node("a", "b"), Node("b", "a")], [Node("a", "gone")], [Node("a"), Node("a")]):
        with pytest.raises(ValueError):
            TreeChart(title="", nodes=nodes)


def test_a_histogram_counts_each_finite_value_once() -> None:
    chart = histogram([3, 3, 4, 9, None, math.nan], title="", x=Axis("", "whole"))
    assert sum(chart.counts) == 4 and chart.edges[0] == 2.5 and chart.edges[-1] == 9.5
    assert sum(histogram([5.0] * 7, title="", x=Axis()).counts) == 7
    assert sum(histogram([], title="", x=Axis()).counts) == 0


def test_a_parent_lies_amid_its_children() -> None:
    found = places([Node("r"), Node("a", "r"), Node("b", "r"), Node("c", "b"), Node("d", "b")])
    assert found == {"a": (1, 0), "c": (2, 1), "d": (2, 2), "b": (1, 1.5), "r": (0, 0.75)}
    chain = [Node("0"), *(Node(str(n), str(n - 1)) for n in range(1, 5000))]
    assert places(chain)["4999"] == (4999, 0)


def _contrast(one: str, other: str) -> float:
    """WCAG 2.1, contrast ratio."""

    def luminance(colour: str) -> float:
        parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_every_colour_stands_out_from_the_paper() -> None:
    assert min(_contrast(colour, "#ffffff") for colour in LIGHT) > 2.6
    assert min(_contrast(colour, "#14181d") for colour in DARK) > 4.5
    assert len(set(LIGHT)) == len(LIGHT) == len(DARK)
    assert "prefers-color-scheme:dark" in style() and "@media screen" in style(), "paper is always light"


def test_a_page_is_one_file_that_fetches_and_runs_nothing() -> None:
    page = html.page(
        HOSTILE, [html.heading(HOSTILE, "h"), html.figures(every_kind(HOSTILE)), html.preformatted(HOSTILE)]
    )
    assert "<script" not in page and "default-src 'none'" in page
    assert not re.search(r"""(src|href)=["'](?!#)|@import|url\(""", page)
    assert page.count("<style>") == 1


def test_drawing_needs_neither_numpy_nor_matplotlib() -> None:
    code = "import sys, fedpkg.pictures.files; print({'numpy', 'matplotlib', 'torch'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
