"""Takes docs/pictures/dashboard-*.png: pages of the dashboard on sessions of examples/digits, as Chromium shows them.

python docs/_ext/dashboard_pictures.py [FOLDER]      needs Chromium and the extra `test`; FOLDER gets every page in every look
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "docs" / "pictures"
RUN = "examples/digits/run.yaml"
DESK, PHONE = {"width": 1200, "height": 900}, {"width": 390, "height": 844}
LOOKS: Mapping[str, tuple[str, dict[str, int]]] = {
    "light": ("light", DESK),
    "dark": ("dark", DESK),
    "phone": ("light", PHONE),
}
IN_DOCS = {
    "dashboard-session.png": ("session", "light"),
    "dashboard-compare.png": ("compare", "dark"),
    "dashboard-phone.png": ("session", "phone"),
}


def main(folder: Path | None) -> None:
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        home = Path(place) / "home"
        make(home)
        with served(home) as address:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            for look, (scheme, size) in LOOKS.items():
                page = browser.new_context(viewport=size, color_scheme=scheme, device_scale_factor=1).new_page()
                page.goto(address)
                for name, path in addresses(page).items():
                    page.goto(address.partition("?")[0].rstrip("/") + path)
                    for plot in page.locator("figure[data-plot]").all():
                        plot.scroll_into_view_if_needed()
                        plot.locator(".js-plotly-plot").wait_for()
                    page.evaluate("window.scrollTo(0, 0)")
                    if folder is not None:
                        page.screenshot(path=folder / f"{name}-{look}.png", full_page=True)
                    for target, wanted in IN_DOCS.items():
                        if wanted == (name, look):
                            page.screenshot(path=PICTURES / target)
            browser.close()


def make(home: Path) -> None:
    """Three sessions and a sweep of the example."""
    for words in (
        ["name=digits"],
        ["name=more-epochs", "arguments.train.epochs=8"],
        ["name=slower", "arguments.train.lr=0.01"],
    ):
        fedpkg("run", RUN, *words, "--home", home)
    fedpkg(
        "experiment",
        "sweep",
        RUN,
        "rounds=3",
        "arguments.train.lr=0.02,0.1",
        "arguments.train.epochs=1,5",
        "--name",
        "swept",
        "--home",
        home,
    )


def fedpkg(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "fedpkg", *map(str, words)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def served(home: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "fedpkg", "dashboard", "--home", str(home), "--json", "--no-open"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield json.loads(process.stdout.readline())["act"]
    process.send_signal(signal.SIGINT)
    process.wait()


def addresses(page: Any) -> dict[str, str]:
    """The pages, found by the links of the list of sessions."""
    paths = [link.get_attribute("href") for link in page.locator("tbody a[href^='/sessions/']").all()]
    first = {one.removeprefix("/sessions/").rpartition("-2")[0]: one for one in paths}
    digits = first["digits"]
    ids = [one.removeprefix("/sessions/") for name, one in first.items() if not name.startswith("swept")]
    tabs = ("rounds", "clients", "clients/client-0", "failures", "models", "configuration")
    return {
        "sessions": "/",
        "session": digits,
        **{tab.replace("/", "-"): f"{digits}/{tab}" for tab in tabs},
        "compare": "/compare?" + "&".join(f"session={one}" for one in ids),
        "sweeps": "/sweeps",
        "sweep": "/sweeps/swept",
        "models-of-all": "/models",
    }


if __name__ == "__main__":
    chosen = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    if chosen is not None:
        chosen.mkdir(parents=True, exist_ok=True)
    main(chosen)
