"""Whole federations of tests/packages/methods, whose entry point uses fedpkg.client, against NumPy in float64."""

from __future__ import annotations

import importlib.util
import json
import sysconfig
import venv
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fedpkg import client
from fedpkg.config_reading import config_from_json
from fedpkg.controller.events import Event, RoundFinished, TaskEnded
from fedpkg.errors import SessionFailed
from fedpkg.formats.model_file import read_model
from fedpkg.means import means
from fedpkg.session import beginning, resuming
from fedpkg.stores.home import Home
from fedpkg.stores.models import ModelStore
from fedpkg.stores.opening import open_store

PACKAGE = Path(__file__).resolve().parents[2] / "packages" / "methods"
RATE, STEPS = 0.05, 5
pytestmark = pytest.mark.slow


def entrypoint() -> ModuleType:
    spec = importlib.util.spec_from_file_location("methods_entrypoint", PACKAGE / "entrypoint.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


DATA = [[tensor.numpy() for tensor in entrypoint().data(who)] for who in range(3)]


def gradient(who: int, x: Any) -> Any:
    rows, targets = DATA[who]
    return rows.T @ (rows @ x - targets)


def descend(who: int, x: Any, linear: Any = 0.0, mu: float = 0.0, anchor: Any = None) -> Any:
    y, anchor = x, x if anchor is None else anchor
    for _ in range(STEPS):
        y = y - RATE * (gradient(who, y) + linear + mu * (y - anchor))
    return y


def scaffold(rounds: int, clients: int) -> Any:
    x, c, own = np.zeros(4), np.zeros(4), [np.zeros(4)] * clients
    for _ in range(rounds):
        ends = [descend(who, x, c - own[who]) for who in range(clients)]
        after = [own[who] - c + (x - ends[who]) / (STEPS * RATE) for who in range(clients)]
        c = c + np.mean(np.subtract(after, own), axis=0)
        x, own = np.mean(ends, axis=0), after
    return x


def feddyn(rounds: int, clients: int, alpha: float) -> Any:
    x, h, own = np.zeros(4), np.zeros(4), [np.zeros(4)] * clients
    for _ in range(rounds):
        ends = [descend(who, x, -own[who], alpha) for who in range(clients)]
        own = [own[who] - alpha * (ends[who] - x) for who in range(clients)]
        h = h - alpha * (np.mean(ends, axis=0) - x)
        x = np.mean(ends, axis=0) - h / alpha
    return x


def fedprox(rounds: int, clients: int, mu: float) -> Any:
    x = np.zeros(4)
    for _ in range(rounds):
        x = np.mean([descend(who, x, mu=mu) for who in range(clients)], axis=0)
    return x


class Sessions:
    """Runs sessions in one home."""

    def __init__(self, folder: Path) -> None:
        self.home = Home.open(folder / "ein Heim ü" / ".fedpkg")
        self.seed = folder / "seed.npz"
        client.save(self.seed, entrypoint().Net())
        self.failures: list[str] = []

    def config(self, section: dict[str, Any], *, executor: str = "forkserver", rounds: int = 2, **more: Any) -> Any:
        return config_from_json(
            {
                "package": str(PACKAGE),
                "seed_model": str(self.seed),
                "rounds": rounds,
                "clients": {"count": 2},
                "strategy": section,
                "executor": {"name": executor, "workers": 2},
                "validation": {"every": 0},
                **more,
            }
        )

    def watch(self, event: Event) -> None:
        if isinstance(event, TaskEnded) and event.answer.failure is not None:
            self.failures.append(f"{event.answer.failure}\n{event.answer.log_tail}")

    def model(self, session_id: str, number: int) -> tuple[str, Any]:
        """A round's global model: its digest, and its point."""
        with open_store(self.home, read_only=True) as store:
            row = store.get_model(f"{session_id}.{number}")
        weights = read_model(ModelStore(self.home.models).path(row.digest, row.suffix))
        assert not weights["ema"].any(), "a buffer, as the metadata of the seed says"
        return row.digest, weights["x"].numpy().copy()

    def run(self, section: dict[str, Any], **more: Any) -> str:
        session = beginning.run(self.config(section, **more), self.home, watch=self.watch)
        assert session.status == "finished" and not self.failures, self.failures
        return str(session.session_id)


@pytest.fixture
def sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sessions:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return Sessions(tmp_path)


@pytest.mark.parametrize("executor", ["resident", pytest.param("process", marks=pytest.mark.soak)])
def test_scaffold_gives_the_same_bytes_on_all_executors_isolated_or_not(sessions: Sessions, executor: str) -> None:
    isolate = {"enabled": means().warm is not None}
    warm = sessions.run({"name": "scaffold"}, isolate=isolate)
    np.testing.assert_allclose(sessions.model(warm, 2)[1], scaffold(2, 2), rtol=1e-12)
    walls = {"isolate": isolate} if executor == "process" else {}
    other = sessions.run({"name": "scaffold"}, executor=executor, **walls)
    digests = [sessions.model(warm, number)[0] for number in (1, 2)]
    assert [sessions.model(other, number)[0] for number in (1, 2)] == digests


def test_feddyn_goes_on_from_what_it_kept_when_it_is_resumed(sessions: Sessions) -> None:
    class Stop(Exception):
        pass

    def stop(event: Event) -> None:
        if isinstance(event, RoundFinished) and event.round.round_number == 1:
            raise Stop

    with pytest.raises((Stop, SessionFailed)):
        beginning.run(sessions.config({"name": "feddyn", "alpha": 0.4}, rounds=3), sessions.home, watch=stop)
    with open_store(sessions.home, read_only=True) as store:
        stopped = store.list_sessions()[-1].session_id
    assert resuming.resume(stopped, sessions.home, watch=sessions.watch).status == "finished"
    np.testing.assert_allclose(sessions.model(stopped, 3)[1], feddyn(3, 2, 0.4), rtol=1e-12)


def test_fedprox_and_personal_models_where_fedpkg_is_not_installed(sessions: Sessions, tmp_path: Path) -> None:
    """Its site-packages are this interpreter's, without what .pth files there add: so fedpkg is not found."""
    folder = tmp_path / "Umgebung ü" / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", "posix_prefix", {"base": str(folder), "platbase": str(folder)}))
    (site / "torch.pth").write_text(sysconfig.get_path("purelib") + "\n")
    package = tmp_path / "client"
    package.mkdir()
    text = (PACKAGE / "entrypoint.py").read_text()
    check = "import importlib.util\nassert importlib.util.find_spec('fedpkg.files') is None\n"
    (package / "entrypoint.py").write_text(text.replace("import sys\n", f"import sys\n{check}", 1))
    commands = {name: f'"{folder}/bin/python" entrypoint.py {name}' for name in ("train", "validate")}
    entry_points = {name: {"command": command} for name, command in commands.items()}
    (package / "fedn.yaml").write_text(json.dumps({"entry_points": entry_points}))
    section = {"name": "fedavg", "parameters": {"proximal_mu": 0.6, "ditto_lambda": 0.5}}
    session = sessions.run(section, package=str(package), validation={"every": 1})
    x = sessions.model(session, 2)[1]
    np.testing.assert_allclose(x, fedprox(2, 2, 0.6), rtol=1e-12)
    with open_store(sessions.home, read_only=True) as store:
        found = {row.client_id: row.metrics for row in store.list_validations(session, round_number=2)}
    for who in range(2):
        rows, targets = DATA[who]
        own = np.zeros(4)
        for anchor in (np.zeros(4), fedprox(1, 2, 0.6)):
            own = descend(who, own, mu=0.5, anchor=anchor)
        metrics = found[f"client-{who}"]
        assert isinstance(metrics, dict)
        for name, point in (("loss", x), ("personal_loss", own)):
            assert metrics[name] == pytest.approx(np.sum((rows @ point - targets) ** 2) / 2, rel=1e-10)


def test_gradients_and_proximal_steps_are_what_svrp_asks_for(sessions: Sessions) -> None:
    session = sessions.run({"name": "svrp", "theta": 0.5, "p": 0.5}, clients={"count": 3}, rounds=8)
    solution = np.linalg.solve(sum(rows.T @ rows for rows, _ in DATA), sum(rows.T @ targets for rows, targets in DATA))
    distances = [np.linalg.norm(sessions.model(session, number)[1] - solution) for number in (0, 8)]
    assert distances[1] < 0.1 * distances[0]
