"""A package, data and a client of FEDn's API for the tests of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fedpkg.api_client import APIClient
from fedpkg.session import background

PACKAGE = Path(__file__).resolve().parents[2] / "packages" / "nearest-mean"
COLD = {"executor": {"name": "process", "workers": 2}, "python_env": "current"}
LISTS = ("clients", "combiners", "models", "packages", "rounds", "sessions", "statuses", "validations")


def write_data(folder: Path) -> str:
    (folder / "data").mkdir()
    for number in (1, 2, 3):
        np.savetxt(folder / "data" / f"site-{number}.txt", np.arange(4.0) + number)
    return str(folder / "data" / "*.txt")


def client_in(folder: Path, **more: Any) -> APIClient:
    return APIClient("127.0.0.1", 8092, home=folder / "home", **{**COLD, **more})


def finish(client: APIClient, **words: Any) -> str:
    started = client.start_session(**{"rounds": 2, "round_timeout": 60, **words})
    assert started["message"] == "Session started", started
    background.wait()
    return str(started["session_id"])


def failed(message: str) -> dict[str, Any]:
    return {"success": False, "message": message}
