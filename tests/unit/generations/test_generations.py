"""One package of each generation of FEDn's contract runs unmodified: the same models from every executor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fedpkg import assemble
from fedpkg.compute_package.unpack import package_problems
from fedpkg.config import RunConfig, config_from_json
from fedpkg.formats.model_file import read_model
from fedpkg.stores.base import SessionRow
from fedpkg.stores.check import check_home
from fedpkg.stores.home import Home
from fedpkg.stores.models import ModelStore
from fedpkg.stores.sqlite import SqliteStore

PACKAGES = Path(__file__).resolve().parents[2] / "packages" / "generations"
EXECUTORS = ("process", "forkserver", "resident")
EQUAL = {"round": {"weighting": "equal", "required": 2}}
OPTIONS = {"ENTRYPOINT_OPTS": "--data_path={data_path}"}


def npz(**arrays: Any) -> Callable[[Path], None]:
    return lambda path: np.savez(path, **arrays)


def text(*rows: float) -> Callable[[Path], None]:
    return lambda path: np.savetxt(path, np.array(rows))


@dataclass(frozen=True)
class Generation:
    """How a package is run: its seed (None: it builds one), and what the run.yaml says beyond the usual."""

    seed: Callable[[Path], None] | None
    keys: list[str]  # of the global model
    validates: bool
    config: dict[str, Any] = field(default_factory=dict)


TWO = npz(**{"0": np.zeros(2), "1": np.zeros(())})
GENERATIONS = {
    "fedn-0.1-settings": Generation(text(0.0, 0.0), ["0"], True, {"helper": "numpyarrayhelper", **EQUAL}),
    "fedn-0.2-pytorch": Generation(
        npz(
            **{"fc1.weight": np.full((4, 2), 0.1, np.float32), "fc1.bias": np.zeros(4, np.float32)},
            **{"fc2.weight": np.full((1, 4), 0.1, np.float32), "fc2.bias": np.zeros(1, np.float32)},
        ),
        ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"],
        False,  # for want of time: each cold call imports PyTorch
        {**EQUAL, "validation": {"every": 0}},
    ),
    "fedn-0.2-numpyarray": Generation(text(1.0, -1.0, 1 / 3), ["0"], False, EQUAL),
    "fedn-0.4-entrypoint": Generation(
        TWO, ["0", "1"], True, {"environment": {"ENTRYPOINT_OPTS": "--epochs=2"}, **EQUAL}
    ),
    "fedn-0.5-get-helper": Generation(
        npz(**{"fc.weight": np.zeros((1, 2)), "fc.bias": np.zeros(1)}),
        ["fc.weight", "fc.bias"],
        True,
        {"environment": OPTIONS},
    ),
    "fedn-0.8-numpyhelper": Generation(TWO, ["0", "1"], True, {"environment": OPTIONS}),
    "fedn-0.8-android": Generation(None, ["0"], False),
    "fedn-0.9-python-env": Generation(TWO, ["0", "1"], True),
    "fedn-0.9-binary": Generation(None, ["0"], False),
    "fedn-0.20-client-settings": Generation(None, ["0", "1"], True, {"run_config": {"learning_rate": 0.1}}),
    "scaleout-1": Generation(None, ["0"], True),
    "bash": Generation(npz(w=np.arange(3.0)), ["w"], True),
    "module": Generation(None, ["w", "steps"], False),
}


@dataclass(frozen=True)
class Clients:
    """Two clients' files, and a home for each run."""

    folder: Path

    def config(self, name: str, executor: str, package: Path | None = None, **changes: Any) -> RunConfig:
        generation = GENERATIONS[name]
        seed = self.folder / f"seed of {name}.npz"
        if generation.seed is not None and not seed.exists():
            generation.seed(seed)
        data = {
            "package": str(package or PACKAGES / name),
            "rounds": 2,
            "clients": {"folders": str(self.folder.parent / "clients" / "*" / "data.npz")},
            "seed_model": None if generation.seed is None else str(seed),
            "validation": {"every": 2},
            "round": {"required": 2},
            "executor": {"name": executor, "workers": 2, "timeout_s": 60},
            **generation.config,
            **changes,
        }
        return config_from_json(msgspec.to_builtins(msgspec.convert(data, RunConfig)))

    def run(self, name: str, executor: str, **changes: Any) -> tuple[SessionRow, Home]:
        home = Home.open(self.folder / f"Heim {executor}" / ".fedpkg")
        return assemble.run(self.config(name, executor, **changes), home, watch=lambda _: None), home


@pytest.fixture
def clients(tmp_path: Path) -> Clients:
    rng = np.random.default_rng(0)
    for number, count in ((1, 4), (2, 6)):
        folder = tmp_path / "clients" / str(number)  # no spaces: $ENTRYPOINT_OPTS would be split at them, as ever
        folder.mkdir(parents=True)
        x = rng.standard_normal((count, 2))
        np.savez(folder / "data.npz", x=x, y=x @ [1.0, 2.0] + 3)
    (tmp_path / "Läufe für zwei").mkdir()
    return Clients(tmp_path / "Läufe für zwei")


def test_table_has_every_package() -> None:
    assert set(GENERATIONS) == {path.name for path in PACKAGES.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("name", GENERATIONS)
def test_package_gives_the_same_models_on_every_executor(clients: Clients, name: str) -> None:
    digests, metrics = [], []
    for executor in EXECUTORS:
        session, home = clients.run(name, executor)
        with SqliteStore(home.state_db, read_only=True) as store:
            assert [row.num_ok for row in store.list_rounds(session.session_id)] == [2, 2]
            models = store.list_models(session.session_id)
            path = ModelStore(home.models).path(models[-1].digest, models[-1].suffix)
            assert list(read_model(path)) == GENERATIONS[name].keys
            digests.append([model.digest for model in models])
            validations = store.list_validations(session.session_id)
            metrics.append([(row.client_id, row.metrics) for row in validations])
            assert len(validations) == (2 if GENERATIONS[name].validates else 0)
        assert check_home(home, package_problems=package_problems).findings == []
    assert digests[0] == digests[1] == digests[2]
    assert metrics[0] == metrics[1] == metrics[2]
    assert len(set(digests[0])) == (1 if name == "bash" else 3)
