"""FEDn's server functions as a strategy: they choose, configure and aggregate, and resume to the same bits."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import Federation

from fedpkg.config import RunConfig
from fedpkg.errors import ConfigError, SessionFailed
from fedpkg.session import resuming
from fedpkg.stores.base import SessionRow

# As its examples have it, in the words of 0.20 and later. It holds a state, and draws.
SERVER_FUNCTIONS = """
from fedn.network.combiner.hooks.allowed_import import Dict, List, ServerFunctionsBase, Tuple, api_client, np, random


class ServerFunctions(ServerFunctionsBase):
    def __init__(self) -> None:
        self.round = 0
        self.lr = 0.2

    def client_selection(self, client_ids: List[str]) -> List:
        known = api_client.get_current_attributes(client_ids)
        assert self.round == 0 or any(one.get("charging") == "True" for one in known.values()), known
        return random.sample(client_ids, 2)

    def client_settings(self, global_model: List[np.ndarray]) -> Dict:
        assert [one.shape for one in global_model] == [(2,)]
        self.round += 1
        self.lr = self.lr / 2
        return {"learning_rate": np.float64(self.lr), "noise": random.random()}

    def aggregate(self, previous_global: List[np.ndarray], client_updates: Dict[str, Tuple[List[np.ndarray], Dict]]):
        total = sum(metadata["num_examples"] for _, metadata in client_updates.values())
        sums = [np.zeros_like(one) for one in previous_global]
        for arrays, metadata in client_updates.values():
            for position, array in enumerate(arrays):
                sums[position] += array * metadata["num_examples"]
        return [one / total for one in sums]
"""
INCREMENTAL = """
from scaleoututil.serverfunctions.allowed_import import ServerFunctionsBase
from scaleoututil.serverfunctions.serverfunctionsbase import RoundType


class ServerFunctions(ServerFunctionsBase):
    def __init__(self):
        self.total, self.mean = 0, None

    def client_selection(self, client_ids, round_type):
        return client_ids if round_type == RoundType.TRAINING else []

    def incremental_aggregate(self, client_id, model, client_metadata, previous_global):
        n = client_metadata["num_examples"]
        self.total += n
        parts = self.mean or [0 * one for one in previous_global]
        self.mean = [old + (new - old) * n / self.total for old, new in zip(parts, model)]

    def get_incremental_aggregate_model(self):
        found, self.mean, self.total = self.mean, None, 0
        return found
"""
SKELETON = "class ServerFunctions(ServerFunctionsBase):\n    def client_selection(self, client_ids):\n        pass\n"
CLIENT = """
import io, json, os, sys
import numpy as np
from fedn import FednClient


def train(in_model, settings):
    weights = np.load(in_model)["0"]
    with open("settings.jsonl", "a") as file:
        file.write(json.dumps(settings) + "\\n")
    x = np.load(os.environ["FEDN_DATA_PATH"])["x"]
    out = io.BytesIO()
    np.savez(out, **{"0": weights + settings.get("learning_rate", 1.0) * x.mean(axis=0)})
    client.log_attributes({"charging": "True"})
    return out, {"training_metadata": {"num_examples": len(x)}}


client = FednClient(train_callback=train)
client.run()
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "paket"
    folder.mkdir()
    (folder / "client.py").write_text(CLIENT)
    for number in range(3):
        x = np.random.default_rng(number).standard_normal((2 + number, 2))
        np.savez(tmp_path / f"daten {number}.npz", x=x)
    np.savez(tmp_path / "seed.npz", **{"0": np.zeros(2)})
    return folder


def config(federation: Federation, package: Path, program: str, **changes: Any) -> RunConfig:
    beside = package.parent
    (beside / "server functions.py").write_text(program)
    return federation.config(
        **{
            "package": str(package),
            "clients": {"folders": str(beside / "daten *.npz")},
            "seed_model": str(beside / "seed.npz"),
            "rounds": 3,
            "validation": {"every": 0},
            "executor": {"workers": 1},
            "strategy": {"server_functions": str(beside / "server functions.py")},
            **changes,
        }
    )


def digests(federation: Federation, session: SessionRow) -> list[str]:
    return federation.digests(session.session_id)


@pytest.mark.slow
def test_server_functions_choose_and_configure_and_aggregate_and_resume_to_the_same_bits(
    federation: Federation, package: Path
) -> None:
    whole = federation.run(config(federation, package, SERVER_FUNCTIONS))
    rounds = federation.store.list_rounds(whole.session_id)
    assert [len(row.cohort) for row in rounds] == [2, 2, 2]
    assert len({tuple(row.cohort) for row in rounds}) > 1
    places = federation.home.session_folder(whole.session_id).glob("round-*/*/train/in.npz-metadata")
    said = {path.parts[-4]: json.loads(path.read_text())["learning_rate"] for path in places}
    assert set(said.items()) <= {("round-1", 0.1), ("round-2", 0.05), ("round-3", 0.025)}
    begun = federation.run(config(federation, package, SERVER_FUNCTIONS, rounds=1))
    resumed = resuming.resume(begun.session_id, federation.home, watch=lambda _: None, rounds=3)
    assert digests(federation, resumed) == digests(federation, whole)


@pytest.mark.slow
def test_incremental_and_missing_functions_are_the_mean_of_fedavg(federation: Federation, package: Path) -> None:
    plain = federation.run(config(federation, package, "", strategy={"name": "fedavg"}))
    model = federation.model(digests(federation, plain)[-1])["0"]
    for program in (INCREMENTAL, SKELETON):
        session = federation.run(config(federation, package, program))
        found = federation.model(digests(federation, session)[-1])["0"]
        np.testing.assert_allclose(found.numpy(), model.numpy(), rtol=1e-12)


@pytest.mark.slow
def test_server_functions_run_isolated(federation: Federation, package: Path) -> None:
    free = federation.run(config(federation, package, SERVER_FUNCTIONS, rounds=2))
    try:
        walled = federation.run(config(federation, package, SERVER_FUNCTIONS, rounds=2, isolate={"enabled": True}))
    except ConfigError as error:
        pytest.skip(error.message)  # this machine cannot
    assert digests(federation, walled) == digests(federation, free)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("x = 1", "has no class ServerFunctions"),
        ("def f(:", r"invalid syntax \(server functions.py, line 1\)"),
        (
            "class ServerFunctions:\n    def aggregate(self, previous, updates):\n        return 1 / 0\n",
            r"aggregate failed \(server functions.py, line 3\): ZeroDivisionError: division by zero",
        ),
        (
            "class ServerFunctions:\n    def aggregate(self, previous, updates):\n        return previous * 2\n",
            r"the aggregated model has arrays of the shapes \[\(2,\), \(2,\)\], not \[\(2,\)\]",
        ),
        (
            "class ServerFunctions:\n    def client_selection(self, client_ids):\n        return []\n",
            r"client_selection \(server functions.py\) chose no client",
        ),
    ],
)
def test_server_functions_that_cannot_be_used_end_the_session_with_the_reason(
    federation: Federation, package: Path, program: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    with pytest.raises(SessionFailed, match=message):
        federation.run(config(federation, package, program, rounds=1))


def test_missing_file_of_server_functions_is_refused(federation: Federation, package: Path) -> None:
    wrong = {"strategy": {"server_functions": str(package / "nowhere.py")}}
    with pytest.raises(ConfigError, match=r"there is no file .*nowhere.py"):
        federation.run(config(federation, package, "", **wrong))
