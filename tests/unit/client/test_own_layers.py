"""A small federation under MOON, FedLC, pFedMe and FedBN: each does to tests/packages/own-layers what it should."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from side_by_side import MODELS, NAMES, clients_of

from fedpkg import client
from fedpkg.config_reading import config_from_json
from fedpkg.session import beginning
from fedpkg.stores.home import Home
from fedpkg.stores.opening import open_store

PACKAGE = Path(__file__).resolve().parents[2] / "packages" / "own-layers"
pytestmark = pytest.mark.slow


def changed(model: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, tensor in model.items() if not torch.allclose(tensor, other[name], atol=1e-6)}


@pytest.mark.soak
def test_methods_of_the_clients_make_the_difference_that_they_should(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    spec = importlib.util.spec_from_file_location("own_layers", PACKAGE / "entrypoint.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    client.save(tmp_path / "seed.npz", module.Net())
    home = Home.open(tmp_path / "Heim ü")
    config = {
        "package": str(PACKAGE),
        "seed_model": str(tmp_path / "seed.npz"),
        "rounds": 2,
        "clients": {"count": 2 * len(NAMES)},
        "strategy": {"name": "side_by_side:SideBySide"},
        "executor": {"name": "resident", "workers": 1},
        "validation": {"every": 2},
    }
    session = beginning.run(config_from_json(config), home, watch=lambda event: None)
    assert session.status == "finished"
    with open_store(home, read_only=True) as store:
        metrics = {row.client_id: row.metrics for row in store.list_validations(session.session_id, round_number=2)}

    seed, first, second = MODELS["fedavg"]
    norms = {key for key in seed if key.startswith("norm.")}
    assert changed(first, seed) >= norms, "FedAvg averages them"
    differ = {name: [bool(changed(MODELS[name][1], first)), bool(changed(MODELS[name][2], second))] for name in NAMES}
    assert differ == {
        "fedavg": [False, False],
        "moon": [False, True],  # before there is a previous model its term is a constant
        **{name: [True, True] for name in ("fedlc", "pfedme", "fedbn")},
    }
    assert not changed(MODELS["fedbn"][2], seed) & norms
    own = {name: [metrics[who]["apart"] > 0 for who in clients_of(name)] for name in NAMES}  # type: ignore[index, call-overload, operator]
    assert own == {name: [name in ("pfedme", "fedbn")] * 2 for name in NAMES}
