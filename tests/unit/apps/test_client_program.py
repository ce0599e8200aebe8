"""The program of a task reads a message, lets the app answer it, and leaves its reply, metrics and state.

Where flwr is installed, the app's classes are flwr's own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from fedpkg.apps import Message
from fedpkg.apps.message_file import read_message, write_message
from fedpkg.records import ArrayRecord, ConfigRecord, RecordDict

RUNTIME = Path(__file__).parents[3] / "fedpkg" / "runtime" / "path"
APP = """
import sys
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

@app.train()
def train(msg, context):
    count = context.state["calls"]["count"] + 1 if "calls" in context.state else 1
    context.state["calls"] = ConfigRecord({"count": count})
    arrays = [a + msg.content["config"]["lr"] for a in msg.content["arrays"].to_numpy_ndarrays()]
    metrics = MetricRecord({"num-examples": 7, "loss": 0.5, "calls": count, "node": context.node_id,
                            "partition": context.node_config["partition-id"], "rate": context.run_config["rate"]})
    return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=msg)

@app.query()
def query(msg, context):
    return None

@app.query("raises")
def raises(msg, context):
    context.state["calls"] = ConfigRecord({"count": -1})
    raise KeyError("no such thing")

@app.query("refuses")
def refuses(msg, context):
    return Message(Error(6, "not today"), reply_to=msg)

@app.query("invents")
def invents(msg, context):
    return Message(Error(77, "its own"), reply_to=msg)

@app.query("invents_300")
def invents_300(msg, context):
    return Message(Error(300, "its own"), reply_to=msg)

@app.query("leaves")
def leaves(msg, context):
    sys.exit(9)

not_an_app = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    (tmp_path / "mine.py").write_text(APP)
    task = {"session_id": "s", "partition_id": 4, "num_partitions": 9, "run_config": {"rate": 0.25}, "seed": 3}
    (tmp_path / "task.json").write_text(json.dumps(task))
    return tmp_path


def call(
    folder: Path, message_type: str = "train", reference: str = "mine:app", *words: str
) -> subprocess.CompletedProcess[str]:
    content = RecordDict({"arrays": ArrayRecord([np.zeros(3)]), "config": ConfigRecord({"lr": 0.5})})
    write_message(folder / "in.npz", Message(content, 5, message_type))
    environ = {
        **os.environ,
        "PYTHONPATH": str(RUNTIME),
        "FEDPKG_TASK": str(folder / "task.json"),
        "FEDPKG_STATE_DIR": str(folder / "state"),
    }
    command = [sys.executable, "-m", "_fedpkg_client_app", reference, str(folder / "in.npz"), str(folder / "out.npz")]
    return subprocess.run([*command, *words], cwd=folder, env=environ, capture_output=True, text=True, check=False)


def test_a_task_leaves_reply_metrics_and_state(folder: Path) -> None:
    for calls in (1, 2):
        done = call(folder)
        assert done.returncode == 0, done.stderr
        reply = read_message(folder / "out.npz")
        np.testing.assert_array_equal(reply.content["arrays"].to_numpy_ndarrays()[0], [0.5, 0.5, 0.5])
        assert reply.metadata.reply_to_message_id == read_message(folder / "in.npz").metadata.message_id
        shown = json.loads((folder / "out.npz-metadata").read_text())
        assert shown == {"num_examples": 7, "loss": 0.5, "calls": calls, "node": 5, "partition": 4, "rate": 0.25}


@pytest.mark.parametrize(
    ("message_type", "code", "said"),
    [
        ("query", 2, "the function for 'query' returned None; it must return Message("),
        ("query.raises", 2, "KeyError: 'no such thing'"),
        ("query.refuses", 6, "replied with an error (code 6): not today"),
        ("query.invents", 77, "replied with an error (code 77): its own"),
        (
            "query.invents_300",
            2,
            "replied with an error (code 300, which cannot be an exit code: use 1 to 125): its own",
        ),
        ("query.leaves", 2, "the ClientApp called sys.exit(9)"),
        ("evaluate", 2, "No evaluate function registered"),
    ],
)
def test_a_task_that_fails_says_how(folder: Path, message_type: str, code: int, said: str) -> None:
    done = call(folder, message_type)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert not (folder / "out.npz").exists()
    assert list((folder / "state").iterdir()) == [], "a failed call leaves no state"


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("mine:nothing", "the module mine has no 'nothing'"),
        ("mine:not_an_app", "mine:not_an_app is a int, not a ClientApp"),
        ("other:app", "No module named 'other'"),
    ],
)
def test_an_app_that_cannot_be_loaded_ends_with_code_1(folder: Path, reference: str, said: str) -> None:
    done = call(folder, "train", reference)
    assert (done.returncode, said in done.stderr) == (1, True), done.stderr


def test_values_of_a_node_come_as_options(folder: Path) -> None:
    (folder / "mine.py").write_text(
        APP.replace('"partition": context', '"cores": context.node_config["cores"], "partition": context')
    )
    assert call(folder, "train", "mine:app", "--node-config.cores=8").returncode == 0
    assert json.loads((folder / "out.npz-metadata").read_text())["cores"] == 8


def test_attributes_of_a_client_are_values_of_its_node(folder: Path) -> None:
    task = json.loads((folder / "task.json").read_text())
    task["attributes"] = {"cores": 2, "device": "phone", "partition-id": 77}
    (folder / "task.json").write_text(json.dumps(task))
    (folder / "mine.py").write_text(APP.replace('"loss": 0.5', '"loss": 0.5, "cores": context.node_config["cores"]'))
    for words, cores in ((), 2), (("--node-config.cores=8",), 8):
        assert call(folder, "train", "mine:app", *words).returncode == 0
        metrics = json.loads((folder / "out.npz-metadata").read_text())
        assert (metrics["cores"], metrics["partition"]) == (cores, 4), "a node's position is not an attribute"


def test_other_options_are_refused(folder: Path) -> None:
    done = call(folder, "train", "mine:app", "--lr=3")
    assert (done.returncode, "a message app has no arguments" in done.stderr) == (1, True), done.stderr


@pytest.mark.skipif(find_spec("flwr") is not None, reason="an installed flwr has its own errors")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("flwr.serverapp.strategy.FedNothing", "fedpkg has no such name"),
        ("flwr.serverapp.RdpAccountant", "each DifferentialPrivacy… strategy keeps the account itself"),
        ("flwr.common.GetParametersIns", "it is of the methods of Client"),
        ("flwr.server.no_such_module.Name", "fedpkg has no such name"),
        ("flwr.nothing.Name", "fedpkg has no such name"),
    ],
)
def test_a_name_that_is_not_there_says_what_is(folder: Path, name: str, said: str) -> None:
    home, _, own = name.rpartition(".")
    (folder / "mine.py").write_text(f"from {home} import {own}\n")
    done = call(folder)
    missing, home = (home, home.rpartition(".")[0]) if own == "Name" else (name, home)
    assert f"{missing}: {said}" in done.stderr
    assert f"{home} has: " in done.stderr
