"""A method that is the clients' part alone, and a package that knows nothing of it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpkg.compute_package.imports import imports_of, mentions
from fedpkg.compute_package.unpack import open_package
from fedpkg.config_reading import config_from_json
from fedpkg.preflight import warn_of_unread_parameters, warn_of_unused
from fedpkg.session import beginning
from fedpkg.stores.home import Home
from fedpkg.strategies import make_strategy

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
    with caplog.at_level(logging.WARNING, "fedpkg.preflight"):
        session = beginning.run(config, Home.open(tmp_path / ".fedpkg"), watch=lambda event: None)
    assert session.status == "finished"
    said = [
        record.getMessage() for record in caplog.records if "does not seem to read proximal_mu" in record.getMessage()
    ]
    assert len(said) == warned


@pytest.mark.parametrize(
    ("strategy", "line", "words"),
    [
        ({"name": "moon"}, "client.load(path, model)", "does not use client.Moon or client.moon_loss"),
        ({"name": "moon"}, "moon = client.Moon(model, given)", None),
        ({"name": "fedprox"}, "loss += client.proximal_term(model, given)", None),
        ({"name": "fedper", "local": ["head.*"]}, "client.load(path, model)", None),
        ({"name": "feddyn"}, "client.load(path, model)", "does not use client.FedDyn"),
        ({"name": "fedamp"}, "client.Ditto(model, given)", "does not use client.fedprox or client.proximal_term"),
        ({"name": "scaffold"}, "client.load(path, model)", None),
    ],
)
def test_a_package_with_the_client_module_but_not_the_methods_line_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, strategy: dict[str, Any], line: str, words: str | None
) -> None:
    package = tmp_path / "Paket"
    package.mkdir()
    (package / "x.py").write_text(f"from fedpkg import client\n\n\ndef train(path, model, given, loss):\n    {line}\n")
    (package / "fedn.yaml").write_text(json.dumps({"entry_points": {"train": {"command": "python x.py"}}}))
    with caplog.at_level(logging.WARNING, "fedpkg.preflight"):
        opened = open_package(package, tmp_path / "cache")
        warn_of_unread_parameters(strategy["name"], opened, make_strategy(strategy))
    assert [words in record.getMessage() for record in caplog.records if words] == [True] * (words is not None)
    assert bool(caplog.records) == (words is not None)


@pytest.mark.parametrize(
    ("line", "warned"),
    [("import numpy", True), ("from fedpkg import client", False), ('if task["reply"] == "delta":\n    pass', False)],
)
def test_a_package_that_would_send_weights_for_a_delta_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, line: str, warned: bool
) -> None:
    package = tmp_path / "Paket"
    package.mkdir()
    (package / "x.py").write_text(f"{line}\n")
    (package / "fedn.yaml").write_text(json.dumps({"entry_points": {"train": {"command": "python x.py"}}}))
    strategy = {"name": "fedavg", "reply": "delta"}
    with caplog.at_level(logging.WARNING, "fedpkg.preflight"):
        opened = open_package(package, tmp_path / "cache")
        warn_of_unread_parameters(strategy["name"], opened, make_strategy(strategy))
    assert bool(caplog.records) == warned
    assert not warned or "as if it were a difference" in caplog.text


@pytest.mark.parametrize(
    ("strategy", "warned"), [({"name": "dp_fedavg", "noise_multiplier": 0.0}, True), ({"name": "fedavg"}, False)]
)
def test_a_required_number_that_does_nothing_is_warned_of(
    caplog: pytest.LogCaptureFixture, strategy: dict[str, Any], warned: bool
) -> None:
    sections: dict[str, Any] = {"package": "p", "rounds": 1, "clients": {"count": 4}, "round": {"required": 3}}
    config = config_from_json({**sections, "strategy": strategy})
    warn_of_unused(config, make_strategy(strategy))
    assert len(caplog.records) == warned
    assert not warned or "round.required=3 has no effect" in caplog.text


@pytest.mark.parametrize(
    "line",
    ["from fedpkg import client", "import fedpkg.client as c", "from fedpkg.client import load", 'x["proximal_mu"]'],
)
def test_uses_of_a_method_are_found_in_python(tmp_path: Path, line: str) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "train.py").write_text(f"def train():\n    {line}\n")
    found = mentions(tmp_path, ["proximal_mu"]) or "fedpkg.client" in imports_of(tmp_path)
    assert found and not mentions(tmp_path, ["ditto_lambda"])
