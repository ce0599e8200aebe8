"""The pages in a real browser: what they say to its console, who can use them, what they show as it happens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from addresses import addresses, session_ids
from served import Served, served
from watched_home import run_yaml

import fedpkg
from fedpkg.errors import Interrupted
from fedpkg.session.session import Session

pytestmark = pytest.mark.browser
ACCESSIBLE = Path(__file__).with_name("accessible.js").read_text()
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}


class Visit:
    """A page of the browser, which fails if anything is said to its console, or asked of another host."""

    def __init__(self, chromium: Any, server: Served, token: str | None = None) -> None:
        self.context = chromium.new_context(viewport=DESK)
        self.page = self.context.new_page()
        self.base = server.base
        self.said: list[str] = []
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", self._asked)
        self.page.on("dialog", lambda dialog: dialog.accept())
        self.page.goto(f"{server.base}/?token={token or server.viewer}")
        assert "token" not in self.page.url

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((f"{self.base}/", "data:", "blob:")):
            self.said.append(f"it asked {request.url}")

    def go(self, path: str) -> None:
        answer = self.page.goto(self.base + path)
        assert answer.status == 200, path

    def draw_plots(self) -> int:
        """Bring every plot into view, and wait until it is drawn; returns their number."""
        figures = self.page.locator("figure[data-plot]")
        for number in range(figures.count()):
            figures.nth(number).scroll_into_view_if_needed()
            figures.nth(number).locator(".js-plotly-plot").wait_for()
        return int(figures.count())


@pytest.fixture
def visit(chromium: Any, server: Served) -> Iterator[Visit]:
    found = Visit(chromium, server)
    yield found
    found.context.close()
    assert not found.said


LOOKS = (("light", DESK), ("dark", DESK), ("light", PHONE))


def check(visit: Visit, path: str, looks: Sequence[tuple[str, Any]] = LOOKS) -> None:
    """What each page must be, in each look."""
    visit.go(path)
    for look, size in looks:
        visit.page.emulate_media(color_scheme=look)
        visit.page.set_viewport_size(size)
        assert visit.page.evaluate(ACCESSIBLE) == [], f"{path}, {look}, {size['width']} pixels wide"
    visit.page.set_viewport_size(DESK)
    assert visit.page.evaluate("window.hacked") is None, path
    assert not visit.said, path


@pytest.mark.parametrize("looks", ["one look", "every look"])
@pytest.mark.every_push("one")
def test_every_page_is_silent_and_accessible(visit: Visit, server: Served, looks: str) -> None:
    for number, path in enumerate(addresses(server.home, "hostile")):
        check(visit, path, [LOOKS[number % 3]] if looks == "one look" else LOOKS)


@pytest.mark.parametrize(
    ("name", "tab"),
    [("finished", ""), ("failing", "/failures"), ("private", ""), ("killed", ""), ("clustered", "/topology")],
)
def test_every_state_of_a_session_is_accessible(visit: Visit, server: Served, name: str, tab: str) -> None:
    check(visit, f"/sessions/{session_ids(server.home)[name]}{tab}")


def test_the_check_finds_what_is_wrong(visit: Visit) -> None:
    visit.go("/")
    wrong = """document.querySelector('main').insertAdjacentHTML('beforeend', '<h4>deep</h4><input><a href="/"></a>' +
        '<table><tr><th>1</th></tr></table><p id="main" class="faint">faint</p><nav></nav>');
        document.querySelector('.faint').style.color = '#bbb'"""
    visit.page.evaluate(wrong)
    found = " ".join(visit.page.evaluate(ACCESSIBLE))
    for word in (
        "h4 follows h1",
        "has no label",
        "no name",
        "no caption",
        "no scope",
        "the id main",
        "contrast",
        "landmark",
    ):
        assert word in found


def test_no_text_of_a_client_becomes_markup_in_a_plot(visit: Visit, server: Served) -> None:
    session_id = session_ids(server.home)["hostile"]
    for path in ("", "/topology", "/failures"):
        visit.go(f"/sessions/{session_id}{path}")
        assert visit.draw_plots() > 0
        assert visit.page.evaluate("window.hacked") is None, path
        markup = "main :not(picture) > img, main script:not([type]), main b, main u, main i"
        assert visit.page.locator(markup).count() == 0, path


def test_clusters_that_were_found_are_drawn(visit: Visit, server: Served) -> None:
    visit.go(f"/sessions/{session_ids(server.home)['clustered']}/topology")
    visit.draw_plots()
    plot = visit.page.locator("#plot-clusters")
    clients = [f"client-{number}" for number in range(4)]
    assert sorted(plot.locator(".ytick").all_text_contents()) == clients
    assert plot.locator(".legendtext").count() == 2, "the clusters"
    tree = " ".join(visit.page.locator("#plot-tree .drawn text").all_text_contents())
    assert [tree.count(client) for client in clients] == [1] * 4, "below its cluster alone"
    assert visit.page.locator("#rows-clusters tbody tr").count() == 4


def test_plots_are_drawn_under_the_strict_policy(visit: Visit, server: Served) -> None:
    visit.go(f"/sessions/{session_ids(server.home)['finished']}")
    assert visit.draw_plots() > 0
    visit.page.emulate_media(color_scheme="dark")
    visit.draw_plots()


def test_a_reader_finds_sorts_and_compares_by_keys_alone(visit: Visit, server: Served) -> None:
    page = visit.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.get_by_role("searchbox").focus()
    page.keyboard.type("killed")
    page.keyboard.press("Enter")
    page.wait_for_url("**/?search=killed")
    assert page.locator("tbody tr").count() == 1
    page.go_back()
    page.get_by_role("link", name="session", exact=True).focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/?sessions.sort=session_id")
    names = page.locator("tbody th").all_inner_texts()
    assert names == sorted(names)
    assert page.locator("th[aria-sort=ascending]").inner_text().startswith("session")
    for name in ("finished", "private"):
        page.get_by_label(f"Select {session_ids(server.home)[name]}").focus()
        page.keyboard.press("Space")
    page.get_by_role("button", name="Compare the selected sessions").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/compare?*")
    assert "strategy.name" in page.inner_text("main")


def test_pages_are_whole_without_javascript(chromium: Any, server: Served) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{server.base}/?token={server.viewer}")
    page.get_by_role("link", name=session_ids(server.home)["finished"]).click()
    page.get_by_role("heading", level=1).wait_for()
    assert page.locator("figure picture img").first.is_visible() and page.locator("tbody tr").count() > 3
    page.get_by_role("link", name="ok", exact=True).click()
    assert "sort=-num_ok" in page.url
    page.get_by_role("button", name="Sign out").click()
    assert "You have signed out" in page.inner_text("h1")
    assert page.goto(f"{server.base}/").status == 401
    page.get_by_label("Token").fill(server.viewer)
    page.get_by_role("button", name="Open").click()
    assert page.url == f"{server.base}/"
    context.close()


class Running:
    """A session that runs, a round for each `open`."""

    def __init__(self, root: Path) -> None:
        self.home, self.gate = root / "home", root / "gate"
        self.gate.mkdir()
        given = run_yaml(name="running", clients={"count": 2}, rounds=3, arguments={"train": {"gate": str(self.gate)}})
        self.session: Session = fedpkg.prepare(given, home=self.home)
        self.session.start()

    def open(self, round_number: int) -> None:
        (self.gate / str(round_number)).touch()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    found = Running(tmp_path)
    yield found
    for number in range(1, 4):
        found.open(number)
    with suppress(Interrupted):
        found.session.join()


def test_an_operator_sees_rounds_as_they_happen_stops_and_resumes(chromium: Any, running: Running) -> None:
    running.open(1)
    with served(running.home) as server:
        visit = Visit(chromium, server, server.operator)
        page = visit.page
        page.locator(".state.running").wait_for()
        page.get_by_role("link", name=running.session.id).click()
        page.locator("#table-rounds tbody tr").nth(1).wait_for()
        page.locator("#table-slots tbody tr", has_text="client-0").wait_for()
        check(visit, f"/sessions/{running.session.id}")
        page.evaluate("window.kept = document.querySelector('h1')")
        running.open(2)
        page.locator("#table-rounds tbody tr").nth(2).wait_for()
        assert page.evaluate("window.kept === document.querySelector('h1')"), "the page was not loaded again"
        page.get_by_role("button", name="Stop the session").click()
        page.locator(".state.stopped").wait_for()
        page.get_by_role("heading", name=f"How did {running.session.id} end?").wait_for()
        assert page.title().startswith("How did")
        with suppress(Interrupted):
            running.session.join()
        running.open(3)
        page.get_by_role("button", name="Resume the session").click()
        page.locator(".state.finished").first.wait_for()
        assert not visit.said
        visit.context.close()
