"""A method that is the clients' part alone, and a package that knows nothing of it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpkg import assemble
from fedpkg.config import config_from_json
from fedpkg.dispatch.imports import imports_of, mentions
from fedpkg.stores.home import Home

FEDPROX: dict[str, Any] = {"name": "fedprox", "proximal_mu": 0.5}
TRAIN = 'cp "$1" "$2"; chmod u+w "$2"; echo \'{"num_examples": 1}\' > "$2-metadata"\n'


@pytest.mark.parametrize(
    ("strategy", "script", "warned"),
    [
        (FEDPROX, TRAIN, True),
        (FEDPROX, TRAIN + "grep -q proximal_mu task.json\ntrue\n", False),
        ({"name": "fedavg"}, TRAIN, False),
    ],
)
def test_a_package_that_reads_nothing_of_the_method_is_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, strategy: dict[str, Any], script: str, warned: bool
) -> None:
    package = tmp_path / "ein Paket ü"
    package.mkdir()
    (package / "train.sh").write_text(script)
    (package / "empty").touch()
    (package / "fedn.yaml").write_text(json.dumps({"entry_points": {"train": {"command": "bash train.sh"}}}))
    np.savez(tmp_path / "seed.npz", w=np.ones(2, np.float32))
    config = config_from_json(
        {
            "package": str(package),
            "seed_model": str(tmp_path / "seed.npz"),
            "rounds": 1,
            "clients": {"count": 1},
            "strategy": strategy,
            "executor": {"name": "process", "workers": 1},
            "validation": {"every": 0},
        }
    )
    with caplog.at_level(logging.WARNING, "fedpkg.assemble"):
        session = assemble.run(config, Home.open(tmp_path / ".fedpkg"), watch=lambda event: None)
    assert session.status == "finished"
    said = [
        record.getMessage() for record in caplog.records if "does not seem to read proximal_mu" in record.getMessage()
    ]
    assert len(said) == warned


@pytest.mark.parametrize(
    "line",
    ["from fedpkg import client", "import fedpkg.client as c", "from fedpkg.client import load", 'x["proximal_mu"]'],
)
def test_uses_of_a_method_are_found_in_python(tmp_path: Path, line: str) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "train.py").write_text(f"def train():\n    {line}\n")
    found = mentions(tmp_path, ["proximal_mu"]) or "fedpkg.client" in imports_of(tmp_path)
    assert found and not mentions(tmp_path, ["ditto_lambda"])
