"""FEDn's server functions as a strategy: they choose, configure and aggregate, and resume to the same bits."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import Federation
from warm import warm_python

from fedpkg.config import RunConfig, dump_config
from fedpkg.errors import ConfigError, FedpkgError, SessionFailed
from fedpkg.means import means
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
# In the words of 0.19; what it aggregates depends on all rounds before, and on draws.
CONFIG = """
from fedn.network.combiner.hooks.allowed_import import ServerFunctionsBase, np, random


class ServerFunctions(ServerFunctionsBase):
    def __init__(self):
        self.seen = []

    def client_selection(self, client_ids):
        return np.random.permutation(client_ids)[:2]

    def client_config(self, global_model):
        return {"learning_rate": 1.0 / (1 + len(self.seen))}

    def aggregate(self, previous_global, client_updates):
        self.seen.append(np.mean([parameters[0] for parameters, _ in client_updates.values()], axis=0))
        return [np.mean(self.seen, axis=0) + 0.01 * random.random()]
"""
PROGRAMS = {"0.19": CONFIG, "0.20": SERVER_FUNCTIONS, "scaleout": INCREMENTAL}
DRIVE = Path(__file__).resolve().parents[1] / "controller" / "drive.py"
ISOLATED = pytest.param("isolated", marks=pytest.mark.skipif(means().warm is None, reason="no isolation here"))
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


@pytest.mark.soak
@pytest.mark.slow
def test_incremental_and_missing_functions_are_the_mean_of_fedavg(federation: Federation, package: Path) -> None:
    plain = federation.run(config(federation, package, "", strategy={"name": "fedavg"}))
    model = federation.model(digests(federation, plain)[-1])["0"]
    for program in (INCREMENTAL, SKELETON):
        session = federation.run(config(federation, package, program))
        found = federation.model(digests(federation, session)[-1])["0"]
        np.testing.assert_allclose(found.numpy(), model.numpy(), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["process", "resident", ISOLATED])
@pytest.mark.parametrize("era", PROGRAMS)
@pytest.mark.every_push("scaleout-isolated")
def test_server_functions_give_the_same_bits_on_every_executor_and_isolated(
    federation: Federation, package: Path, era: str, where: str
) -> None:
    at = {"isolate": {"enabled": True}} if where == "isolated" else {"executor": {"name": where, "workers": 1}}
    usual = federation.run(config(federation, package, PROGRAMS[era], rounds=2))
    other = federation.run(config(federation, package, PROGRAMS[era], rounds=2, **at))
    assert len(set(digests(federation, usual))) == 3
    assert digests(federation, other) == digests(federation, usual)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("--kill-at", "7"),  # one client of the second round has answered
        *(pytest.param(("--kill-at", str(number)), marks=pytest.mark.soak) for number in (3, 5, 6, 8, 9, 11)),
        pytest.param(("--kill-at-step", "before:commit_round:2"), marks=pytest.mark.soak),
        pytest.param(("--kill-at-step", "after:commit_round:2"), marks=pytest.mark.soak),
    ],
)
@pytest.mark.parametrize("era", PROGRAMS)
@pytest.mark.every_push("0.19-words0")
def test_killed_in_a_round_server_functions_go_on_to_the_same_bits(
    federation: Federation, package: Path, era: str, words: tuple[str, str]
) -> None:
    run = config(federation, package, PROGRAMS[era])
    whole = federation.run(run)
    (path := federation.home.root / "config.json").write_text(json.dumps(dump_config(run)))
    command = [*warm_python(), str(DRIVE), str(federation.home.root), "--run", str(path), *words]
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == -signal.SIGKILL
    killed = federation.store.list_sessions()[-1]
    assert killed.session_id != whole.session_id and len(digests(federation, killed)) < 4
    resumed = federation.resume(killed.session_id)
    assert resumed.status == "finished"
    assert digests(federation, resumed) == digests(federation, whole)
    cohorts = [[row.cohort for row in federation.store.list_rounds(one.session_id)] for one in (resumed, whole)]
    assert cohorts[0] == cohorts[1]
    assert federation.findings() == []


HEAD = "import numpy as np\nclass ServerFunctions:\n"
SELECTS = HEAD + "    def client_selection(self, client_ids):\n        return "
SETTINGS = HEAD + "    def client_settings(self, global_model):\n        return "
AGGREGATES = HEAD + "    def aggregate(self, previous, updates):\n        return "
TAKES = HEAD + "    def incremental_aggregate(self, *given):\n        {}\n"
TAKES += "    def get_incremental_aggregate_model(self):\n        return {}\n"
FILE = r"server functions.py, line {}\)"
SLEEPS = "__import__('time').sleep(60)"
COMPUTES = "[None for _ in iter(int, 1)]"  # for ever


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("x = 1", "has no class ServerFunctions"),
        ("def f(:", r"invalid syntax \(server functions.py, line 1\)"),
        ("import nowhere", r"the file failed \(server functions.py, line 1\): ModuleNotFoundError"),
        (HEAD + "    def __init__(self):\n        1 / 0", r"ServerFunctions failed \(" + FILE.format(4)),
        (SELECTS + "1 / 0", r"client_selection failed \(" + FILE.format(4) + ": ZeroDivisionError: division by zero"),
        (SELECTS + "[]", r"client_selection \(server functions.py\) chose no client"),
        (SELECTS + "['nobody', 'daten 0']", r"chose nobody; the clients are daten 0, daten 1, daten 2"),
        (SELECTS + "3", r"client_selection \(server functions.py\) returned 3, not a list of clients"),
        (SELECTS + "'daten 0'", "returned 'daten 0', not a list of clients"),
        (SETTINGS + "{}['lr']", r"client_settings failed \(" + FILE.format(4) + ": KeyError: 'lr'"),
        (SETTINGS + "[0.1]", r"client_settings \(server functions.py\) returned \[0.1\], not a dictionary of settings"),
        (SETTINGS + "{(1, 2): 3}", "JSON of what client_settings returned failed .*TypeError: keys must be str"),
        (SETTINGS + "{'lr': float('nan')}", "client_settings returned failed .*ValueError"),
        (AGGREGATES + "1 / 0", r"aggregate failed \(" + FILE.format(4) + ": ZeroDivisionError: division by zero"),
        (
            AGGREGATES + "previous * 2",
            r"the aggregated model has arrays of the shapes \[\(2,\), \(2,\)\], not \[\(2,\)\]",
        ),
        (AGGREGATES + "[np.zeros(3)]", r"arrays of the shapes \[\(3,\)\], not \[\(2,\)\]"),
        (AGGREGATES + "3", "the aggregated model is not a list of arrays: NumPy failed .*'int' object is not iterable"),
        (AGGREGATES + "[['a', 'b']]", "the aggregated model is not a list of arrays: NumPy failed .*could not convert"),
        (AGGREGATES + "[np.array([1.0, np.nan])]", "tensor '0' of the next global model is not finite in float64"),
        (TAKES.format("1 / 0", "None"), r"incremental_aggregate failed \(" + FILE.format(4)),
        (TAKES.format("pass", "1 / 0"), r"get_incremental_aggregate_model failed \(" + FILE.format(6)),
        (TAKES.format("pass", "[np.zeros((2, 2))]"), r"arrays of the shapes \[\(2, 2\)\], not \[\(2,\)\]"),
        (AGGREGATES + SLEEPS, "the coordinator: it sent nothing for 2 s"),
        *(
            pytest.param(function + waits, "the coordinator: it sent nothing for 2 s", marks=pytest.mark.soak)
            for function, waits in [(SELECTS, SLEEPS), (SETTINGS, SLEEPS)]
            + [(function, COMPUTES) for function in (SELECTS, SETTINGS, AGGREGATES)]
        ),
        (SELECTS + "__import__('os')._exit(3)", r"it ended with code 3 before it committed the round \(3 times"),
    ],
)
@pytest.mark.every_push("no class|nowhere|line 4|chose|previous . 2|not finite|get_incr|sent nothing|code 3")
def test_server_functions_that_cannot_be_used_end_the_session_with_the_reason(
    federation: Federation, package: Path, program: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    run = config(federation, package, program, rounds=1)
    if program.endswith((SLEEPS, COMPUTES)):
        run.strategy["timeout_s"] = 2.0
    with pytest.raises(FedpkgError, match=message):
        federation.run(run)
    assert federation.store.list_sessions()[-1].status == "failed"


def test_session_of_server_functions_that_failed_goes_on_when_they_are_mended(
    federation: Federation, package: Path
) -> None:
    whole = federation.run(config(federation, package, SERVER_FUNCTIONS, rounds=2))
    broken = SERVER_FUNCTIONS.replace("self.round += 1\n", "self.round += 1\n        assert self.round < 2\n")
    with pytest.raises(SessionFailed, match=r"round 2: .*client_settings failed \(server functions.py, line 18\)"):
        federation.run(config(federation, package, broken, rounds=2))
    (package.parent / "server functions.py").write_text(SERVER_FUNCTIONS)
    resumed = federation.resume(federation.store.list_sessions()[-1].session_id)
    assert digests(federation, resumed) == digests(federation, whole)


def test_missing_file_of_server_functions_is_refused(federation: Federation, package: Path) -> None:
    wrong = {"strategy": {"server_functions": str(package / "nowhere.py")}}
    with pytest.raises(ConfigError, match=r"there is no file .*nowhere.py"):
        federation.run(config(federation, package, "", **wrong))
