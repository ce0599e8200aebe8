"""The program that gives a ClientApp a model file: what the app gets, and what becomes of its reply."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedpkg.cli.main import run_command
from fedpkg.compute_package.app import App, spec_with_models
from fedpkg.compute_package.build import build_from_app
from fedpkg.compute_package.spec import parse_spec
from fedpkg.compute_package.unpack import open_package
from fedpkg.dispatch.forkserver import preloads_for
from fedpkg.dispatch.site import PackageOnDisk
from fedpkg.errors import PackageError

RUNTIME = Path(__file__).parents[3] / "fedpkg" / "runtime" / "path"
PYPROJECT = """\
[project]
name = "mine"
[tool.flwr.app.components]
serverapp = "mine:server"
clientapp = "mine:app"
[tool.flwr.app.config]
rate = 0.5
text = "it's {client_id} $HOME"
"""
APP = """
import json
import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app, server = ClientApp(), None

@app.train()
def train(msg, context):
    count = context.state["calls"]["count"] + 1 if "calls" in context.state else 1
    context.state["calls"] = ConfigRecord({"count": count})
    with open("seen.json", "w") as file:
        json.dump([dict(msg.content["config"]), dict(context.run_config), context.node_config, count], file)
    rate, how = context.run_config["rate"], msg.content["config"].get("how")
    arrays = [array + rate for array in msg.content["arrays"].to_numpy_ndarrays()]
    record = ArrayRecord(arrays)
    if how == "named":
        record = ArrayRecord(dict(zip(msg.content["arrays"], arrays)))
    if how == "double":
        record = ArrayRecord([array.astype(np.float64) for array in arrays])
    if how == "other":
        record = ArrayRecord({"x": arrays[0]})
    records = {"arrays": record, "metrics": MetricRecord({"num-examples": 7, "loss": 0.25})}
    if how == "none":
        del records["arrays"]
    return Message(RecordDict(records), reply_to=msg)

@app.evaluate()
def evaluate(msg, context):
    total = float(sum(array.sum() for array in msg.content["arrays"].to_numpy_ndarrays()))
    return Message(RecordDict({"m": MetricRecord({"total": total, "num-examples": 3})}), reply_to=msg)
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    (folder / "state").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PYPROJECT)
    (folder / "mine.py").write_text(APP)
    np.savez(folder / "in.npz", **{"w.0": np.ones(2, np.float32), "b": np.zeros((), np.float32)})
    return folder


def call(app: Path, name: str, *more: str, **task: object) -> subprocess.CompletedProcess[str]:
    """Run the command of an entry point as fedpkg would."""
    given = {"session_id": "s", "round_number": 4, "partition_id": 2, "num_partitions": 9, **task}
    (app / "task.json").write_text(json.dumps(given))
    environ = {**os.environ, "PYTHONPATH": str(RUNTIME), "FEDPKG_TASK": str(app / "task.json")}
    environ["FEDPKG_STATE_DIR"] = str(app / "state")
    spec = parse_spec(spec_with_models(open_package(app, app.parent / "cache").spec.app or App("", "", "")), "made")
    command = f"{spec.entry_point(name).command} in.npz out.npz {shlex.join(more)}".replace("python", sys.executable, 1)
    return subprocess.run(["bash", "-c", command], cwd=app, env=environ, capture_output=True, text=True)


def test_the_app_gets_a_message_and_its_reply_becomes_a_model(app: Path) -> None:
    more = ("--rate=2", "--lr=0.1", "--on=True")
    done = call(app, "train", *more, parameters={"proximal_mu": 0.3, "list": [1]}, run_config={"text": "other", "z": 1})
    assert done.returncode == 0, done.stderr
    config, run_config, node_config, count = json.loads((app / "seen.json").read_text())
    named = {"proximal_mu": 0.3, "proximal-mu": 0.3}
    assert config == {"server-round": 4, **named, "rate": 2, "lr": 0.1, "on": True}
    assert run_config == {"rate": 2.0, "text": "other", "z": 1} and isinstance(run_config["rate"], float)
    assert (node_config, count) == ({"partition-id": 2, "num-partitions": 9}, 1)
    with np.load(app / "out.npz") as out:
        assert (out.files, out["w.0"].tolist(), out["b"].tolist()) == (["w.0", "b"], [3, 3], 2)
    assert json.loads((app / "out.npz-metadata").read_text()) == {"num_examples": 7, "loss": 0.25}


def test_values_of_the_file_are_words_of_the_command_and_its_state_is_kept(app: Path) -> None:
    for expected in (1, 2):
        assert call(app, "train").returncode == 0
        _, run_config, _, count = json.loads((app / "seen.json").read_text())
        assert run_config == {"rate": 0.5, "text": "it's {client_id} $HOME"}
        assert count == expected


@pytest.mark.parametrize("how", ["named", "double"])
def test_names_and_dtypes_are_those_of_the_given_model(app: Path, how: str) -> None:
    assert call(app, "train", f"--how={how}").returncode == 0
    with np.load(app / "out.npz") as out:
        assert (out.files, str(out["w.0"].dtype)) == (["w.0", "b"], "float32")


def test_a_strategy_may_ask_for_the_difference(app: Path) -> None:
    done = call(app, "train", reply="delta", parameter_names=["w.0"], rest=True)
    assert done.returncode == 0, done.stderr
    with np.load(app / "out.npz") as out:
        assert {name: out[name].tolist() for name in out.files} == {"w.0": [0.5, 0.5], "b": 0.5}


@pytest.mark.parametrize(
    ("how", "message"),
    [("none", "has 0 ArrayRecords; a model is one ArrayRecord"), ("other", "lacks b, w.0: reply with the arrays")],
)
def test_a_reply_that_is_no_model_of_this_shape_is_a_failure(app: Path, how: str, message: str) -> None:
    done = call(app, "train", f"--how={how}")
    assert done.returncode == 2 and message in done.stderr
    assert not (app / "out.npz").exists()


def test_a_strategy_that_wants_something_else_is_refused(app: Path) -> None:
    done = call(app, "train", reply="gradient")
    assert done.returncode == 2 and "the strategy expects a gradient" in done.stderr


def test_validate_writes_the_metrics(app: Path) -> None:
    assert call(app, "validate").returncode == 0
    assert json.loads((app / "out.npz").read_text()) == {"total": 2.0, "num_examples": 3}


def test_the_package_runs_with_a_strategy_of_a_run_yaml(app: Path, tmp_path: Path) -> None:
    build_from_app(app, tmp_path / "package.tar.gz")
    package = open_package(tmp_path / "package.tar.gz", tmp_path / "cache")
    assert package.spec.served == ("flwr", "flwr-datasets") and package.spec.python_env == "pyproject.toml"
    preload = preloads_for(PackageOnDisk("", package.root, package.folder, package.spec))["-m _fedpkg_model_app"]
    assert {"fedpkg.apps.model_program", "flwr.clientapp.ClientApp"} <= set(preload.modules)
    options = ["--clients", "2", "--rounds", "2", "--seed-model", str(app / "in.npz"), "--home", str(tmp_path / "home")]
    words = ["run", "--package", str(tmp_path / "package.tar.gz"), *options, "strategy.name=fedavgm"]
    assert run_command([*words, "strategy.momentum=0"]) == 0


def test_a_folder_that_is_no_app_is_refused(app: Path, tmp_path: Path) -> None:
    (app / "fedn.yaml").write_text("entry_points: {train: {command: x}}\n")
    for folder, message in ((app, "already has a fedn.yaml"), (tmp_path / "state", "is not the folder of a message")):
        with pytest.raises(PackageError, match=message):
            build_from_app(folder, tmp_path / "p.tar.gz")
