"""Takes docs/pictures/report.png: the top of the report of examples/digits, as Chromium shows it.

python docs/_ext/report_picture.py          needs Chromium, and Pillow (comes with matplotlib)
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "pictures" / "report.png"
WIDTH, HEIGHT = 1100, 1240


def take() -> None:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as folder:
        fedpkg = [str(Path(sys.executable).with_name("fedpkg"))]
        # From the root, and with a path from there, so that the page names no folder of this machine's user.
        home = ["--home", f"{folder}/home"]
        subprocess.run([*fedpkg, "run", "examples/digits/run.yaml", *home], cwd=ROOT, check=True, capture_output=True)
        page, shot = Path(folder) / "report.html", Path(folder) / "report.png"
        subprocess.run([*fedpkg, "session", "report", "-o", page, *home], cwd=ROOT, check=True)
        page.write_text(page.read_text().replace(str(ROOT), "~/fedpkg"))
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={folder}/profile",
        ]
        size = f"--window-size={WIDTH},{HEIGHT}"
        subprocess.run(
            [chromium, *options, size, f"--screenshot={shot}", page.as_uri()], check=True, capture_output=True
        )
        with Image.open(shot) as picture:
            picture.convert("RGB").quantize(64).save(PICTURE, optimize=True)


if __name__ == "__main__":
    take()
    print(PICTURE, PICTURE.stat().st_size)
