"""Opens a page in a real Chromium without a screen; a test that needs it is skipped where there is none."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: pages were not looked at")


def screenshot(page: Path, target: Path, *, width: int = 1200, height: int = 1600, dark: bool = False) -> Path:
    """A picture of the top of a page."""
    theme = ["--blink-settings=preferredColorScheme=0", "--force-dark-mode"] if dark else []
    _chromium(page, f"--window-size={width},{height}", "--hide-scrollbars", f"--screenshot={target}", *theme)
    assert target.is_file()
    return target


def document(page: Path) -> str:
    """The document as the browser has read it."""
    return _chromium(page, "--dump-dom")


def printed(page: Path, target: Path) -> Path:
    """The page as a PDF, as it is printed."""
    _chromium(page, "--no-pdf-header-footer", f"--print-to-pdf={target}")
    assert target.is_file()
    return target


def _chromium(page: Path, *options: str) -> str:
    assert CHROMIUM is not None
    profile = page.parent / "chromium-profile"
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", *options]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout
