"""A home that all tests of the dashboard look at, its server, and a browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from once import made_once
from served import Served, served
from watched_home import make_home
from zygotes import shared_zygotes

__all__ = ["shared_zygotes"]

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "watched homes ü", make_home) / "home"


@pytest.fixture(scope="session")
def server(home: Path) -> Iterator[Served]:
    with served(home) as found:
        yield found


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser of this machine."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: pages were not opened in a browser")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
