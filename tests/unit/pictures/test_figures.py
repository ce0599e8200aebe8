"""Charts as plotly's figures: plain JSON, thinned, with colours for dark pages; texts of clients stay texts."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from fedpkg.pictures.chart import (
    Axis,
    Band,
    BarChart,
    Chart,
    Curve,
    HeatMap,
    LineChart,
    Node,
    TreeChart,
    binned_cells,
)
from fedpkg.pictures.figure import MOST_POINTS, to_plotly
from fedpkg.pictures.raster import to_bytes
from fedpkg.pictures.svg import to_svg
from tests.unit.pictures.kinds import HOSTILE, every_kind

OWN_TAGS = re.compile("</?(br|sub)>")


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _leaves(part)
    else:
        yield value


@pytest.mark.parametrize("chart", every_kind(), ids=lambda chart: type(chart).__name__)
def test_every_kind_is_plain_json_with_a_trace_and_both_axes(chart: Chart) -> None:
    figure = to_plotly(chart)
    assert json.loads(json.dumps(figure, allow_nan=False)) == figure
    assert figure["data"] and all(trace["type"] in ("scatter", "bar", "heatmap") for trace in figure["data"])
    assert figure["layout"]["title"]["text"] == "a" and {"xaxis", "yaxis"} <= figure["layout"].keys()


@pytest.mark.parametrize("chart", every_kind(), ids=lambda chart: type(chart).__name__)
def test_every_colour_has_one_for_dark_pages(chart: Chart) -> None:
    figure = to_plotly(chart)
    used = {leaf for leaf in _leaves([figure["data"], figure["layout"]]) if re.match("#|rgb", str(leaf))}
    assert used and used <= figure["dark"].keys()


@pytest.mark.parametrize("chart", every_kind(HOSTILE), ids=lambda chart: type(chart).__name__)
def test_plotly_finds_no_tag_and_no_entity_in_texts_of_clients(chart: Chart) -> None:
    figure = to_plotly(chart)
    templates = [trace.pop("hovertemplate", "") for trace in figure["data"]]
    assert {*templates} <= {"", "%{x}<extra></extra>"}, "none has a part of a client"
    texts = [leaf for leaf in _leaves([figure["data"], figure["layout"]]) if isinstance(leaf, str)]
    assert any("&lt;script&gt;" in text for text in texts)
    for text in texts:
        assert "<" not in OWN_TAGS.sub("", text) and "\x1b" not in text and "\u202e" not in text


def test_a_text_with_an_entity_is_shown_as_it_is() -> None:
    chart = LineChart(title="&lt;b&gt; <b>", curves=[Curve("&amp;", [1], [1])])
    figure = to_plotly(chart)
    assert figure["layout"]["title"]["text"] == "&amp;lt;b&amp;gt; &lt;b&gt;"
    assert figure["data"][0]["name"] == "&amp;amp;"


def test_gaps_of_curves_and_bands_stay_gaps() -> None:
    band = Band([0, 1, None, 3], [2, 3, None, 5])
    figure = to_plotly(LineChart(title="", curves=[Curve("", [1, 2, 3, 4], [1, math.inf, math.nan, 4.0], [band])]))
    area, line = figure["data"]
    assert (line["x"], line["y"]) == ([1, None, 4], [1, None, 4.0])
    assert "markers" in line["mode"], "a lone point is seen"
    assert (area["x"], area["y"]) == ([1, 2, 2, 1, None, 4, 4], [0, 1, 3, 2, None, 3, 5])


def test_a_logarithmic_axis_has_no_place_for_zero_and_less() -> None:
    chart = LineChart(title="", curves=[Curve("", [0, 1, 2, 3], [5, -1, 10, 1e4])], x=Axis(log=True), y=Axis(log=True))
    figure = to_plotly(chart)
    assert figure["data"][0]["x"] == [2, 3] and figure["layout"]["yaxis"]["type"] == "log"


def test_bytes_have_units_and_rounds_have_no_fractions() -> None:
    axes = {"x": Axis("round", "whole"), "y": Axis("", "bytes")}
    layout = to_plotly(LineChart(title="", curves=[Curve("", [1, 2, 3], [1e6, 2e6, 3e6])], **axes))["layout"]  # type: ignore[arg-type]
    assert (layout["yaxis"]["tickformat"], layout["yaxis"]["ticksuffix"]) == ("~s", "B")
    assert layout["xaxis"]["dtick"] == 1


def test_many_points_are_thinned_and_extremes_stay() -> None:
    ys = [math.sin(number / 100) for number in range(100_000)]
    ys[54_321] = 9.5
    line = to_plotly(LineChart(title="", curves=[Curve("", range(100_000), ys)]))["data"][0]
    assert len(line["x"]) < 4000 and line["y"][line["x"].index(54_321)] == 9.5
    assert (line["x"][0], line["x"][-1]) == (0, 99_999)


def test_five_hundred_rounds_of_many_curves_are_sent_in_a_megabyte() -> None:
    rounds = range(1, 501)
    curves = [Curve(f"session {n}", rounds, [math.sin(n + r) for r in rounds]) for n in range(150)]
    for chart in (
        LineChart(title="", curves=curves),
        LineChart(title="", curves=curves[:1], faint=curves[:100], faint_name="clients"),
    ):
        figure = to_plotly(chart)
        assert sum(len(trace["x"]) for trace in figure["data"]) <= MOST_POINTS + 1000
        assert len(json.dumps(figure)) < 1_200_000


def test_bars_of_rounds_lie_at_their_numbers_and_other_labels_keep_their_order() -> None:
    rounds = to_plotly(BarChart(title="", labels=["3", "4", "5"], series={"a": [1, 2, 3]}))
    assert rounds["data"][0]["x"] == [3, 4, 5] and "ticktext" not in rounds["layout"]["xaxis"]
    one = to_plotly(BarChart(title="", labels=["2"], series={"a": [1]}))
    assert one["layout"]["xaxis"]["dtick"] == 1, "there is no round 1.5"
    names = to_plotly(BarChart(title="", labels=["2024-01-01", "2024-01-01", "1e3"], series={"a": [1, 2, 3]}))
    assert names["data"][0]["x"] == [0, 1, 2] and names["layout"]["xaxis"]["ticktext"][2] == "1e3", "names are no dates"


def test_areas_after_the_last_colour_have_lines() -> None:
    chart = BarChart(title="labels", labels=["a"], series={f"class {n}": [10 + n] for n in range(18)}, stacked=True)
    looks = [json.dumps(trace["marker"], sort_keys=True) for trace in to_plotly(chart)["data"]]
    assert len(set(looks)) == 18 and not any("pattern" in look for look in looks[:8])
    assert to_svg(chart).count('class="k"') >= 10
    assert b"PNG" in to_bytes([chart], ".png")


def test_a_large_heat_map_is_binned_both_ways() -> None:
    names = [str(number) for number in range(700)]
    chart = HeatMap(title="", rows=names, columns=names, values=[[1.0] * 700] * 700)
    trace = to_plotly(chart)["data"][0]
    assert len(trace["z"]) <= 300 and len(trace["z"][0]) <= 300 and {*trace["z"][0]} == {1.0}
    assert "means of 7 neighbours" in binned_cells(chart, 100).x.label


def test_a_deep_tree_has_room_for_its_rows() -> None:
    nodes = [Node("r"), *(Node(str(n), "r", note="x") for n in range(30))]
    figure = to_plotly(TreeChart(title="", nodes=nodes))
    assert figure["layout"]["height"] > 30 * 40 and len(figure["data"][1]["text"]) == 31


def test_a_figure_needs_neither_plotly_nor_numpy() -> None:
    code = (
        "import sys; from fedpkg.pictures.figure import to_plotly; from tests.unit.pictures.kinds import every_kind\n"
        "[to_plotly(chart) for chart in every_kind()]; print({'plotly', 'numpy', 'torch'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
