"""Plots of pages: whole without a script, hostile texts stay texts, and each has its files."""

from __future__ import annotations

import csv
import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fedpkg.api.opening import opened
from fedpkg.dashboard.asked import Asked
from fedpkg.dashboard.curves import View, matrix_of
from fedpkg.dashboard.downloads import part_of
from fedpkg.dashboard.json_tree import MOST_NODES, tree_of
from fedpkg.dashboard.page import Page
from fedpkg.dashboard.plots import MOST_ROWS, figure
from fedpkg.dashboard.routes import ROUTES
from fedpkg.errors import NotFound
from fedpkg.pictures.chart import Axis, Chart, Curve, HeatMap, LineChart
from fedpkg.pictures.figure import to_plotly
from tests.unit.pictures.kinds import HOSTILE, every_kind
from tests.unit.reporting.written import write_session

ASKED = Asked("/sessions/a%2Fb", {"session_id": "a/b"}, [("x", "bytes")])


class Parts(HTMLParser):
    """The elements of a figure, and the texts of its scripts and cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.data = ""
        self.cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        assert not any(name.startswith("on") or name == "style" for name in given)
        self.links += [given[name] or "" for name in ("href", "src", "srcset") if name in given]
        if tag == "script":
            assert given["type"] == "application/json"

    def handle_data(self, data: str) -> None:
        if self.tags[-1] == "script" and not self.data:
            self.data = data
        elif self.tags[-1] == "td" and data.strip():
            self.cells.append(data)


@pytest.mark.parametrize("chart", every_kind(HOSTILE), ids=lambda chart: type(chart).__name__)
def test_a_figure_has_a_picture_a_table_links_and_data_and_no_text_is_markup(chart: Chart) -> None:
    parts = Parts(figure(ASKED, "curve", chart))
    assert {*parts.tags} <= {
        "figure", "picture", "source", "img", "script", "figcaption", "details", "summary", "div", "table", "thead",
        "tr", "th", "tbody", "td", "span", "a", "p",
    }  # fmt: skip
    assert json.loads(parts.data) == to_plotly(chart), "the block of data is what plotly draws"
    wanted = ("narrow", "wide", "csv", "json", "svg", "png")
    assert parts.links == [f"/sessions/a%2Fb?x=bytes&download=curve.{form}" for form in wanted]


def test_a_live_region_has_no_picture_and_a_long_table_has_its_ends() -> None:
    rounds = range(1, 501)
    chart = LineChart(title="t", curves=[Curve("a", rounds, [r / 7 for r in rounds])], x=Axis("round", "whole"))
    live = Parts(figure(ASKED.on(None, is_live=True), "curve", chart))  # type: ignore[arg-type]
    assert "img" not in live.tags
    firsts = live.cells[::2]
    assert len(firsts) == MOST_ROWS and firsts[0] == "1" and firsts[-1] == "500"


@pytest.mark.parametrize("chart", every_kind(HOSTILE), ids=lambda chart: type(chart).__name__)
def test_every_kind_is_a_file_in_every_form(chart: Chart) -> None:
    page = Page("", parts={"curve": lambda: chart})
    for form, begins in (("wide", b"<svg"), ("narrow", b"<svg"), ("svg", b"<svg"), ("csv", b"\xef\xbb\xbf")):
        assert b"".join(part_of(ASKED, page, f"curve.{form}").pieces).startswith(begins), form
    rows = list(csv.reader(io.StringIO(b"".join(part_of(ASKED, page, "curve.csv").pieces).decode())))
    assert len({len(row) for row in rows}) == 1
    assert len(json.loads(b"".join(part_of(ASKED, page, "curve.json").pieces))) == len(rows) - 1
    assert part_of(ASKED, page, "curve.wide").name.endswith("curve.svg")


def test_a_png_is_drawn_by_matplotlib_and_unknown_forms_are_refused() -> None:
    page = Page("", parts={"curve": every_kind()[0]})
    assert b"".join(part_of(ASKED, page, "curve.png").pieces).startswith(b"\x89PNG")
    for wanted in ("curve.gif", "curve", "other.csv", "../curve.csv", "curve.csv.."):
        with pytest.raises(NotFound):
            part_of(ASKED, page, wanted)


def test_the_view_of_an_address_is_one_that_is_known() -> None:
    assert View.of(Asked("/", {}, [("x", "calls"), ("log", "1")])) == View("calls", True)
    assert View.of(Asked("/", {}, [("x", "<script>"), ("log", "2")])) == View("round", False)


def test_lists_of_lists_of_numbers_are_heat_maps_and_others_are_not() -> None:
    found = matrix_of("confusion", [[1, 2], [3, None], [4]])
    assert isinstance(found, HeatMap) and found.values == [[1, 2], [3, None], [4, None]]
    for value in ([[1, 2]], [[1, "a"], [2, 3]], [[True, 1], [1, 2]], [], [[], []], [1, 2], {"a": 1}, [[1], 2]):
        assert matrix_of("x", value) is None  # type: ignore[arg-type]


def test_what_a_client_wrote_is_a_tree_with_limits() -> None:
    value: Any = {
        "accuracy": 0.912345, "confusion": [[1, 2], [3, 4]], "notes": HOSTILE, "many": list(range(1000)),
        "deep": {"a": {"b": None, "c": []}}, "long": "x" * 5000,
    }  # fmt: skip
    found = tree_of("", value)
    told = {one.name: one for one in found.root.inner}
    assert told["accuracy"].text == "0.9123" and told["many"].text.endswith("and 960 more")
    assert told["confusion"].plot == "matrix-0" and found.plots["matrix-0"].title.strip(".") == "confusion"
    assert told["notes"].text == HOSTILE and told["long"].is_long and "5000 characters" in told["long"].text
    assert [one.text for one in told["deep"].inner[0].inner] == ["null", "empty"]
    large = tree_of("", [{"a": number} for number in range(5000)])
    assert len(large.root.inner) <= MOST_NODES and large.root.more == 5000 - len(large.root.inner)
    nested: Any = 1
    for _ in range(3000):
        nested = {"a": nested}
    assert tree_of("", nested).root.inner, "no recursion error"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plots") / "home"
    for number in (1, 2):
        write_session(root, f"digits-{number}", rounds=6, seed=number, config={"arguments": {"train": {"lr": number}}})
    return root


def page_of(home: Path, name: str, names: dict[str, str], **query: str | list[str]) -> Page:
    route = next(one for one in ROUTES if one.template == f"{name}.html")
    given = [(key, one) for key, value in query.items() for one in ([value] if isinstance(value, str) else value)]
    with opened(home) as at:
        found = route.answer(Asked("/", names, given).on(at))
        return Page(found.title, found.values, {key: found.part(key) for key in found.parts}, found.notes)  # type: ignore[misc]


def charts_of(page: Page) -> dict[str, Any]:
    return {name: part for name, part in page.parts.items() if isinstance(part, Chart)}


def test_a_session_has_its_metrics_over_any_axis_and_its_costs(home: Path) -> None:
    names = {"session_id": "digits-1"}
    charts = charts_of(page_of(home, "session", names))
    assert [charts[f"metric-{n}"].title for n in range(3)] == ["test_accuracy", "test_loss", "loss"]
    assert len(charts["metric-0"].curves[0].bands) == 2 and charts["metric-0"].curves[0].name == "validation"
    assert charts["bytes"].curves[0].ys == sorted(charts["bytes"].curves[0].ys)
    by_bytes = charts_of(page_of(home, "session", names, x="bytes", log="1"))["metric-0"]
    assert by_bytes.x.kind == "bytes" and by_bytes.curves[0].xs[-1] > 10**6 and by_bytes.y.log


def test_each_client_has_a_line_on_demand(home: Path) -> None:
    names = {"session_id": "digits-1", "metric": "test_accuracy"}
    plain = charts_of(page_of(home, "metric", names))["curve"]
    assert not plain.faint and plain.curves[0].bands
    each = charts_of(page_of(home, "metric", names, each="1", client="client-002"))["curve"]
    assert [one.name for one in each.faint] == [f"client-00{n}" for n in range(4)]
    assert each.faint_name == "4 clients" and not each.curves[0].bands
    assert [one.name for one in each.curves] == ["validation", "client-002"]
    with pytest.raises(NotFound, match="test_accuracy"):
        page_of(home, "metric", {**names, "metric": "test_acuracy"})


def test_sessions_are_compared_over_each_other(home: Path) -> None:
    page = page_of(home, "compare", {}, session=["digits-1", "digits-2"], metric="test_loss", x="seconds")
    chart = charts_of(page)["curves"]
    assert [one.name for one in chart.curves] == ["digits-1", "digits-2"] and chart.title == "test_loss by seconds"


def test_clients_failures_and_models_have_plots(home: Path) -> None:
    names = {"session_id": "digits-1"}
    assert len(charts_of(page_of(home, "clients", names))) == 3, "labels as bars, as a heat map, and sizes"
    failed = charts_of(page_of(home, "failures", names))["by-round"]
    assert sum(failed.series["exit_code"]) == page_of(home, "failures", names).parts["failures"].total  # type: ignore[union-attr]
    trail = charts_of(page_of(home, "models", names))["trail"]
    assert [one.label for one in trail.nodes] == ["seed model", "round 1", "…", "round 5", "round 6"]
    own = charts_of(page_of(home, "client", {**names, "client_id": "client-001"}))
    assert own["metric-0"].curves[0].name == "client-001" and len(own["metric-0"].curves[0].ys) >= 5
    assert [one.name for one in own["times"].curves] == ["train", "validate"]


def test_the_values_of_a_round_are_those_of_the_task_that_is_chosen(home: Path) -> None:
    page = page_of(home, "values", {"session_id": "digits-1"})
    assert [one.name for one in page.values["tree"].inner] == ["test_accuracy", "test_loss", "num_examples"]
    assert page.values["round"] == 6 and page.values["previous"] == 5 and page.values["following"] is None
    none = page_of(home, "values", {"session_id": "digits-1"}, round="400", task="nothing")
    assert none.values["tree"] is None
