"""Federated algorithms in sessions."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "controller"))
from federation import Federation
from zygotes import shared_zygotes

from fedpkg.stores.home import Home

__all__ = ["shared_zygotes"]


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(Home.open(tmp_path / "ein Heim ü" / ".fedpkg"))


@pytest.fixture
def hospitals(tmp_path: Path) -> Path:
    """A folder with the data of three hospitals, and entities.yaml, which lists them in another order."""
    folder = tmp_path / "Daten ü"
    (folder / "data").mkdir(parents=True)
    for name, ages in (("hospital-a", (50, 60)), ("hospital-b", (70,)), ("hospital-c", (20, 30, 40))):
        rows = "".join(f"{age},{number}\n" for number, age in enumerate(ages))
        (folder / "data" / f"{name}.csv").write_text(f"age,stage\n{rows}")
    names = ("Hospital B", "Hospital A", "Hospital C")
    (folder / "entities.yaml").write_text("".join(["organizations:\n", *(f"- {{name: {one}}}\n" for one in names)]))
    return folder
