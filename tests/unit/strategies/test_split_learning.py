"""Split learning: FEDn's form of package and one on records learn from vertical data, and resume to the bit."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "controller"))
from federation import PACKAGES, Federation
from warm import warm_python

from fedpkg.cli.report import calls_text, examples_text
from fedpkg.config import RunConfig, dump_config
from fedpkg.errors import ConfigError, FedpkgError
from fedpkg.means import means
from fedpkg.session import resuming
from fedpkg.stores.base import SessionRow
from fedpkg.stores.home import Home

DRIVE = Path(__file__).resolve().parents[1] / "controller" / "drive.py"
# A model of several layers, which draws and has statistics.
SERVER = """
from torch import nn


class ServerModel(nn.Module):
    def __init__(self, input_features):
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(input_features, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1))
        self.last = nn.Linear(8, 1)

    def forward(self, x):
        return self.last(self.hidden(x)).sigmoid()
"""
# As FEDn's server has it, where the model is changed: in the file of its aggregator.
AGGREGATOR = """
import torch
from torch import nn

from fedn.common.log_config import logger
from fedn.network.combiner.aggregators.aggregatorbase import AggregatorBase
from fedn.utils.helpers.helpers import get_helper

helper = get_helper("splitlearninghelper")
torch.manual_seed(42)


class ServerModel(nn.Module):
    def __init__(self, input_features):
        super(ServerModel, self).__init__()
        self.fc1 = nn.Linear(input_features, 4)
        self.fc2 = nn.Linear(4, 1)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x):
        return self.sigmoid(self.fc2(torch.tanh(self.fc1(x))))


class Aggregator(AggregatorBase):
    def __init__(self, update_handler):
        super().__init__(update_handler)
        self.model = None
"""
# Classes, with a loss and an optimiser of its own.
CLASSES = """
import torch


class ServerModel(torch.nn.Linear):
    def __init__(self, input_features):
        super().__init__(input_features, 2)


def loss(output, targets):
    return torch.nn.functional.cross_entropy(output, targets)


def optimizer(parameters):
    return torch.optim.SGD(parameters, lr=0.5, momentum=0.9)
"""
PAGE = (Path(__file__).resolve().parents[3] / "docs" / "how-to" / "split-learning.md").read_text()
OF_THE_PAGE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
SERVERS = {"one layer": None, "several layers": SERVER, "FEDn's file": AGGREGATOR, "classes": CLASSES}
SERVERS["the page's"] = OF_THE_PAGE
ISOLATED = pytest.param("isolated", marks=pytest.mark.skipif(means().warm is None, reason="no isolation here"))


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((80, 6)).astype(np.float32)
    y = (x @ [1.0, -2.0, 0.5, 1.5, -1.0, 2.0] > 0).astype(np.float32)
    for number, columns in ((1, slice(0, 4)), (2, slice(4, 6))):
        np.savez(tmp_path / f"spalten {number}.npz", X_train=x[:60, columns], X_test=x[60:, columns])
    np.savez(tmp_path / "labels.npz", y_train=y[:60], y_test=y[60:])
    torch.save({"y_train": torch.tensor(y[:60]), "y_test": torch.tensor(y[60:])}, tmp_path / "labels.pt")
    np.savez(tmp_path / "klassen.npz", y_train=y[:60].astype(np.int64), y_test=y[60:].astype(np.int64))
    return Federation(Home.open(tmp_path / "ein Heim ü" / ".fedpkg"))


def config(
    federation: Federation,
    package: str | Path,
    *,
    labels: str = "labels.npz",
    server: str | None = None,
    **changes: Any,
) -> RunConfig:
    here = federation.home.root.parents[1]
    labels = "klassen.npz" if server == CLASSES else labels
    strategy = {"name": "split", "labels": str(here / labels), "validate": True, "learning_rate": 0.05}
    if server is not None:
        (here / "mein server.py").write_text(server)
        strategy["server_model"] = str(here / "mein server.py")
    return federation.config(
        **{
            "package": str(PACKAGES / package),
            "clients": {"folders": str(here / "spalten *.npz")},
            "rounds": 6,
            "executor": {"workers": 1},
            "strategy": {**strategy, **changes.pop("strategy", {})},
            **changes,
        }
    )


def metrics(federation: Federation, session: SessionRow) -> list[Any]:
    return [row.strategy_metrics for row in federation.store.list_rounds(session.session_id)]


def at(where: str) -> dict[str, Any]:
    """The keys of a run there."""
    if where == "isolated":
        return {"isolate": {"enabled": True}}
    return {"executor": {"name": where, "workers": 1}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "server"),
    [
        ("split-fedn", "one layer"),
        pytest.param("split-records", "one layer", marks=pytest.mark.soak),
        pytest.param("split-records", "several layers", marks=pytest.mark.soak),
        *(pytest.param("split-fedn", name, marks=pytest.mark.soak) for name in [*SERVERS][1:]),
    ],
)
def test_loss_falls_and_a_resumed_session_has_the_same_bits(federation: Federation, package: str, server: str) -> None:
    program = SERVERS[server]
    session = federation.run(config(federation, package, server=program))
    whole = metrics(federation, session)
    assert whole[-1]["loss"] < (0.75 if program is None else 0.95) * whole[0]["loss"]
    assert whole[-1]["test_loss"] < whole[0]["test_loss"]
    assert whole[-1]["accuracy"] > whole[0]["accuracy"]
    assert 0 < whole[-1]["test_accuracy"] <= 1
    for row in federation.store.list_rounds(session.session_id):
        assert calls_text(row) == f"2 clients, {row.num_ok} calls ok 0 failed" and row.num_ok >= 4
        assert examples_text(row) == "", "no client reports examples"
    begun = federation.run(config(federation, package, rounds=3, labels="labels.pt", server=program))
    resumed = resuming.resume(begun.session_id, federation.home, watch=lambda _: None, rounds=6)
    assert metrics(federation, resumed) == whole
    assert federation.findings() == []


@pytest.mark.slow
@pytest.mark.parametrize("server", ["one layer", pytest.param("several layers", marks=pytest.mark.soak)])
@pytest.mark.parametrize("where", ["process", "resident", ISOLATED])
@pytest.mark.parametrize("package", ["split-fedn", pytest.param("split-records", marks=pytest.mark.soak)])
@pytest.mark.every_push("isolated")
def test_every_executor_gives_the_same_bits(federation: Federation, package: str, where: str, server: str) -> None:
    found = [
        metrics(federation, federation.run(config(federation, package, rounds=2, server=SERVERS[server], **at(one))))
        for one in ("forkserver", where)
    ]
    assert found[0] == found[1]


# A round has two forward tasks, two backward tasks and two forward tasks of the test examples.
@pytest.mark.slow
@pytest.mark.parametrize("server", ["one layer", pytest.param("several layers", marks=pytest.mark.soak)])
@pytest.mark.parametrize("kill_at", [13, *(pytest.param(one, marks=pytest.mark.soak) for one in (3, 5, 8, 10, 12, 15))])
def test_killed_in_a_round_it_resumes_to_the_same_bits(federation: Federation, server: str, kill_at: int) -> None:
    run = config(federation, "split-fedn", rounds=3, server=SERVERS[server])
    whole = metrics(federation, federation.run(run))
    (path := federation.home.root / "config.json").write_text(json.dumps(dump_config(run)))
    command = [*warm_python(), str(DRIVE), str(federation.home.root), "--run", str(path), "--kill-at", str(kill_at)]
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == -signal.SIGKILL
    killed = federation.store.list_sessions()[-1]
    assert killed.status == "running" and len(metrics(federation, killed)) <= 3
    resumed = federation.resume(killed.session_id)
    assert resumed.status == "finished" and metrics(federation, resumed) == whole


MODULE = "import torch\nclass ServerModel(torch.nn.Module):\n    def __init__(self, n):\n        super().__init__()\n"
FORWARD = MODULE + "        self.w = torch.nn.Parameter(torch.zeros(n, 1))\n    def forward(self, x):\n        return "


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("x = 1", "mein server.py has no class ServerModel"),
        ("def f(:", r"invalid syntax \(mein server.py, line 1\)"),
        ("import nowhere", r"the file failed \(mein server.py, line 1\): ModuleNotFoundError: .*nowhere"),
        ("ServerModel = dict.fromkeys", r"ServerModel failed \(mein server.py\): TypeError: 'int' object is not"),
        ("def ServerModel(n): return n", "ServerModel is not a torch.nn.Module"),
        (MODULE + "        1 / 0", r"ServerModel failed \(mein server.py, line 5\): ZeroDivisionError"),
        (MODULE + "        pass", r"optimizer failed \(mein server.py\): ValueError: optimizer got an empty"),
        (FORWARD + "x @ self.w[1:]", r"ServerModel.forward failed \(mein server.py, line 7\): RuntimeError"),
        (FORWARD + "(x @ self.w)[1:]", r"must return a row for each of 60 examples, not \(59, 1\)"),
        (FORWARD + "None", "must return a row for each of 60 examples, not NoneType"),
        (FORWARD + "x @ self.w - 1", "loss failed .*: RuntimeError: all elements of input should be between 0 and 1"),
        (FORWARD + "x @ self.w\ndef loss(y, t): return 3", "loss must return one number as a tensor, not 3"),
        (FORWARD + "x @ self.w\ndef loss(y, t): return t.mean()", "loss.backward failed .*: RuntimeError"),
        (FORWARD + "x @ self.w\ndef loss(y, t): return (y / 0).sum()", "the loss is not finite: nan"),
        ("import time\ntime.sleep(60)", "the coordinator: it sent nothing for 2 s"),
    ],
)
@pytest.mark.every_push("no class|sent nothing")
def test_server_model_that_cannot_be_used_ends_the_session_with_the_reason(
    federation: Federation, program: str, message: str
) -> None:
    waits = {"timeout_s": 2} if "sleep" in program else {}
    with pytest.raises(FedpkgError, match=message):
        federation.run(config(federation, "split-records", rounds=1, server=program, strategy=waits))


@pytest.mark.soak
def test_server_model_that_changed_does_not_take_what_it_kept(federation: Federation) -> None:
    begun = federation.run(config(federation, "split-records", rounds=1, server=CLASSES))
    program = federation.home.root.parents[1] / "mein server.py"
    program.write_text(CLASSES.replace("input_features, 2", "input_features, 3"))
    with pytest.raises(FedpkgError, match=r"does not fit them: load_state_dict failed [\s\S]*size mismatch for weight"):
        federation.resume(begun.session_id, rounds=2)
    program.write_text(CLASSES)
    assert federation.resume(begun.session_id, rounds=2).status == "finished"


@pytest.mark.parametrize("server", ["one layer", "classes"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("x @ np.load(PATH)}", "x[0] @ np.load(PATH)}"), "sent no embedding: records with the set 'embedding'"),
        (('{"embedding": {', '{"other": {'), "sent no embedding: records with the set 'embedding'"),
        (
            ("x @ np.load(PATH)}", "x[:9 + x.shape[1]] @ np.load(PATH)}"),
            "have different numbers of examples: .*13, .*11",
        ),
        (("x @ np.load(PATH)}", "x[:9] @ np.load(PATH)}"), "60 labels 'y_train', but embeddings of 9 examples"),
    ],
)
@pytest.mark.every_push("one layer")
def test_embeddings_that_cannot_be_used_end_the_session(
    federation: Federation, tmp_path: Path, change: tuple[str, str], message: str, server: str
) -> None:
    package = tmp_path / "paket"
    package.mkdir()
    for path in (PACKAGES / "split-records").iterdir():
        text = path.read_text()
        assert path.name == "fedn.yaml" or change[0] in text
        (package / path.name).write_text(text.replace(*change))
    with pytest.raises(FedpkgError, match=message):
        federation.run(config(federation, package, rounds=1, server=SERVERS[server]))


def test_labels_and_server_model_must_be_there(federation: Federation) -> None:
    with pytest.raises(ConfigError, match=r"server_model: there is no file .*nowhere.py"):
        federation.run(config(federation, "split-records", strategy={"server_model": "nowhere.py"}))
    with pytest.raises(ConfigError, match=r"there is no file .*nowhere.npz"):
        federation.run(config(federation, "split-records", labels="nowhere.npz"))
    np.savez(federation.home.root.parents[1] / "other.npz", y=np.zeros(3))
    with pytest.raises(ConfigError, match=r"strategy.labels: .*other.npz has no 'y_train'"):
        federation.run(config(federation, "split-records", labels="other.npz", rounds=1))


def test_run_of_such_a_package_with_another_strategy_names_this_one(federation: Federation) -> None:
    with pytest.raises(FedpkgError) as caught:
        federation.run(federation.config(package=str(PACKAGES / "split-fedn"), clients=2, rounds=1))
    assert caught.value.message.startswith("the package has no entry point 'train'")
    assert caught.value.hint is not None
    assert "strategy={name: split, labels: FILE}" in caught.value.hint
