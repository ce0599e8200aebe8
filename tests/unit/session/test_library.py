"""`import fedpkg` as programs and notebooks use it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import fedpkg

ROOT = Path(__file__).resolve().parents[3]
PROBE = """
import sys, fedpkg
names = dir(fedpkg)
fedpkg.prepare, fedpkg.run, fedpkg.load, fedpkg.Session, fedpkg.register_strategy, fedpkg.register_sampler
fedpkg.APIClient, fedpkg.serve_fedn_imports
print(*(name for name in ("torch", "numpy", "click", "rich") if name in sys.modules))
"""


def test_its_names_load_neither_torch_nor_numpy_nor_the_command_line() -> None:
    ran = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []


def test_every_name_is_there_and_documented() -> None:
    page = (ROOT / "docs" / "how-to" / "python.md").read_text()
    for name in fedpkg.__all__:
        assert getattr(fedpkg, name).__doc__ or name.startswith("register_")
        assert f"`{name}" in page or f"fedpkg.{name}" in page, f"docs/how-to/python.md does not say what {name} is"
    with pytest.raises(AttributeError, match="no attribute 'sesion'"):
        fedpkg.sesion  # noqa: B018
