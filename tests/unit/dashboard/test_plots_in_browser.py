"""Every kind of plot in a real browser, under the policy of the pages: drawn, silent, readable, kept in a change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fedpkg.dashboard import assets
from fedpkg.dashboard.asked import Asked
from fedpkg.dashboard.plots import figure
from fedpkg.pictures.chart import Axis, Chart, Curve, LineChart, Node, TreeChart
from fedpkg.pictures.palette import DARK_PAGE, LIGHT_PAGE
from tests.unit.pictures.kinds import HOSTILE, every_kind

pytestmark = pytest.mark.browser
NAMES = (HOSTILE, "<b>bold</b> <a href='javascript:alert(1)'>link</a> &lt;i&gt; %{x} $x^2$ " + "n" * 300)
INSERT = """async ([html, script]) => {
    document.querySelector("main").innerHTML = html;
    const module = await import(script);
    module.draw(document);
}"""
CHANGE = """async ([html, script]) => (await import(script)).replace(document.querySelector("main"), html)"""


class Gallery:
    """A page of the dashboard in which charts take the place of its content."""

    def __init__(self, page: Any, base: str) -> None:
        self.page, self.said = page, []  # type: ignore[var-annotated]
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self._asked(request.url, base))

    def _asked(self, url: str, base: str) -> None:
        if not url.startswith((f"{base}/", "data:")):
            self.said.append(f"it asked {url}")

    def show(self, charts: list[Chart]) -> None:
        asked = Asked("/", {})
        drawn = "".join(figure(asked.on(None, is_live=True), f"p{n}", chart) for n, chart in enumerate(charts))  # type: ignore[arg-type]
        self.page.evaluate(INSERT, [drawn, assets.static_url("plots.js")])
        for number in range(len(charts)):
            place = self.page.locator(f"#plot-p{number}")
            place.scroll_into_view_if_needed()
            place.locator(".drawn .main-svg").first.wait_for(state="attached")

    def change(self, chart: Chart) -> None:
        """A live update of the first plot."""
        drawn = figure(Asked("/", {}, is_live=True), "p0", chart)
        self.page.evaluate(CHANGE, [drawn, assets.static_url("page.js")])

    def colour(self, selector: str, name: str) -> str:
        found = self.page.eval_on_selector(selector, f"(one) => getComputedStyle(one).{name}")
        red, green, blue = (int(part) for part in found.removeprefix("rgb(").removesuffix(")").split(",")[:3])
        return f"#{red:02x}{green:02x}{blue:02x}"


@pytest.fixture
def gallery(chromium: Any, server: Any) -> Iterator[Gallery]:
    context = chromium.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    page.goto(f"{server.base}/?token={server.viewer}")
    found = Gallery(page, server.base)
    yield found
    context.close()
    assert not found.said


@pytest.mark.parametrize("name", NAMES, ids=["tags", "entities"])
@pytest.mark.every_push("tags")
def test_every_kind_is_drawn_and_every_text_is_shown_as_it_is(gallery: Gallery, name: str) -> None:
    charts = every_kind(name)
    gallery.show(charts)
    page = gallery.page
    assert page.locator(".drawn a, .drawn script, .drawn b, .drawn foreignObject").count() == 0
    assert page.evaluate("window.hacked") is None
    for number in range(len(charts)):
        plot = page.locator(f"#plot-p{number} .drawn")
        assert plot.get_attribute("role") == "img" and len(plot.get_attribute("aria-label")) > 40
        title = plot.locator(".gtitle").text_content()
        assert title.rstrip("…") and name.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e").startswith(
            title.rstrip("…")
        )


@pytest.mark.soak
def test_a_plot_has_the_colours_of_the_page_and_follows_them(gallery: Gallery) -> None:
    gallery.page.emulate_media(color_scheme="light")
    gallery.show(every_kind())
    paper = "#plot-p0 .drawn .main-svg"
    assert gallery.colour(paper, "backgroundColor") == LIGHT_PAGE["paper"]
    gallery.page.emulate_media(color_scheme="dark")
    gallery.page.wait_for_function(
        "(dark) => getComputedStyle(document.querySelector('#plot-p0 .drawn .main-svg')).backgroundColor === dark",
        arg="rgb(20, 24, 29)",
    )
    assert DARK_PAGE["paper"] == "#14181d" == gallery.colour(paper, "backgroundColor")


def test_keys_move_and_zoom_and_a_change_keeps_what_is_seen(gallery: Gallery) -> None:
    rounds = list(range(1, 41))
    charts: list[Chart] = [
        LineChart(title="loss", curves=[Curve("a", rounds, [1 / r for r in rounds])], x=Axis("round"))
    ]
    gallery.show(charts)
    page, read = gallery.page, "document.querySelector('.drawn').layout.xaxis.range"
    before = page.evaluate(read)
    page.locator(".drawn").focus()
    page.keyboard.press("+")
    page.keyboard.press("ArrowRight")
    zoomed = page.evaluate(read)
    assert zoomed[1] - zoomed[0] < (before[1] - before[0]) * 0.7 and zoomed[0] > before[0]
    more = [*rounds, 41, 42]
    changed = LineChart(title="loss", curves=[Curve("a", more, [1 / r for r in more])], x=Axis("round"))
    gallery.change(changed)
    page.wait_for_function("() => document.querySelector('.drawn').data[0].x.length === 42")
    assert page.evaluate(read) == pytest.approx(zoomed), "the zoom is kept"
    page.locator(".drawn").focus()
    page.keyboard.press("0")
    page.wait_for_function(f"() => {read}[1] > 41")


def test_curves_are_hidden_by_keys_and_stay_hidden(gallery: Gallery) -> None:
    def chart(count: int) -> LineChart:
        rounds = list(range(1, count + 1))
        return LineChart(title="loss", curves=[Curve("a <b>", rounds, rounds), Curve("c", rounds, rounds)])

    gallery.show([chart(3)])
    page = gallery.page
    page.locator(".entries summary").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    shown = "document.querySelector('.drawn')._fullData.map((trace) => trace.visible)"
    page.wait_for_function(f"() => {shown}[0] === 'legendonly'")
    assert page.locator(".entries label").all_inner_texts() == [" a <b>", " c"]
    gallery.change(chart(4))
    page.wait_for_function("() => document.querySelector('.drawn').data[1].x.length === 4")
    assert page.evaluate(shown) == ["legendonly", True]
    page.locator(".drawn .legendtoggle").first.click()
    page.wait_for_function(f"() => {shown}[0] === true")
    assert page.locator(".entries input").first.is_checked()


@pytest.mark.soak
def test_a_tree_of_one_row_is_low(gallery: Gallery) -> None:
    gallery.show([TreeChart(title="trail", nodes=[Node("0"), Node("1", "0")])])
    box = gallery.page.locator(".drawn").bounding_box()
    assert box["height"] < 180


def test_a_browser_makes_a_png_of_what_is_seen(gallery: Gallery) -> None:
    gallery.show([every_kind()[0], every_kind()[4]])
    for name in ("p0", "p1"):
        with gallery.page.expect_download() as waiting:
            gallery.page.locator(f"#plot-{name} a[data-form=png]").click()
        path = waiting.value.path()
        assert waiting.value.suggested_filename == f"{name}.png" and path.read_bytes().startswith(b"\x89PNG")


def test_without_plotly_the_pictures_stay(gallery: Gallery) -> None:
    page = gallery.page
    page.route("**/plotly.js", lambda route: route.abort())
    asked = Asked("/", {})
    page.evaluate(INSERT, [figure(asked, "p0", every_kind()[0]), assets.static_url("plots.js")])
    with page.expect_console_message(lambda message: "the pictures stay" in message.text):
        page.locator("#plot-p0").scroll_into_view_if_needed()
    assert page.locator("#plot-p0 img").count() == 1
    gallery.said.clear()  # the picture of a page that has no such part, and the script that was refused
