"""Real tasks load what the run configuration names for a dataset, also isolated ones, and after a resume only that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import Federation
from message_apps import make_app

from fedpkg.config import IsolateConfig
from fedpkg.data.named_sources import copies_for_apps
from fedpkg.errors import DataError, SessionFailed
from fedpkg.means import means
from fedpkg.session.by_hand import Call, call_entry_point
from fedpkg.session.package_run import run_of_package
from fedpkg.stores.base import TaskRow

CLIENT = """
import json, os, sys
import numpy as np
from flwr_datasets import FederatedDataset
from flwr_datasets.partitioner import DirichletPartitioner

command, *paths = sys.argv[1:]
if command == "build":
    np.savez(paths[0], pixels=np.zeros(1))
    sys.exit()
with open(os.environ["FEDPKG_TASK"]) as file:
    task = json.load(file)
divide = DirichletPartitioner(task["num_partitions"], "label", alpha=1.0, min_partition_size=1)
mine = FederatedDataset(dataset="uoft-cs/cifar10", partitioners={"train": divide}).load_partition(task["partition_id"])
mine = mine.with_transform(lambda batch: {"y": batch["label"], "x": [np.asarray(one) for one in batch["img"]]})
assert mine[0]["x"].shape == (8, 8, 3) and type(mine[0]["y"]) is int
with open(paths[1], "wb") as file:
    np.savez(file, pixels=np.mean([row["x"] for row in mine], keepdims=True).reshape(1))
with open(f"{paths[1]}-metadata", "w") as file:
    json.dump({"num_examples": len(mine)}, file)
"""
YAML = "entry_points:\n  build: {command: python client.py build}\n  train: {command: python client.py train}\n"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "client.py").write_text(CLIENT)
    (folder / "fedn.yaml").write_text(YAML)
    return folder


@pytest.fixture
def pixels(tmp_path: Path) -> Path:
    """A file of images, in a folder of which tasks have nothing else."""
    folder = tmp_path / "öffentliche Daten"
    folder.mkdir()
    rng = np.random.default_rng(0)
    x = rng.integers(0, 255, (200, 3, 8, 8), dtype=np.uint8)
    np.savez(folder / "pixels.npz", x_train=x, y_train=rng.integers(0, 4, 200))
    return folder / "pixels.npz"


def run_of(package: Path, source: Any, **changes: Any) -> dict[str, Any]:
    return {"package": str(package), "data": {"sources": {"cifar10": source}}, "clients": 3, **changes}


@pytest.mark.parametrize("isolated", [False, True])
@pytest.mark.parametrize("executor", ["process", "forkserver"])
@pytest.mark.every_push("forkserver|process-True")
def test_tasks_have_their_partition_of_the_named_data(
    federation: Federation, package: Path, pixels: Path, executor: str, isolated: bool
) -> None:
    if isolated and means().warm is None:
        pytest.skip(f"no isolation here: {means()}")
    run = run_of(package, str(pixels), executor={"name": executor}, isolate={"enabled": isolated})
    session = federation.run(**run)
    rows = [federation.task(session, f"client-{number}") for number in range(3)]
    assert [row.failure for row in rows] == [None] * 3, [row.log_tail for row in rows]
    sizes = [row.last_num_examples or 0 for row in federation.store.list_clients(session.session_id)]
    assert sum(sizes) == 200
    assert len(set(sizes)) > 1
    with np.load(pixels) as arrays:
        expected = float(arrays["x_train"].mean())
    assert float(federation.model(f"{session.session_id}.1")["pixels"][0]) == pytest.approx(expected, rel=1e-5)
    assert [path.suffix for path in copies_for_apps(federation.home.data)] == [".json"]  # pixels.npz itself is mapped


def test_an_isolated_task_can_be_repeated_by_hand(
    federation: Federation, package: Path, pixels: Path, tmp_path: Path
) -> None:
    if means().cold is None:
        pytest.skip(f"no isolation here: {means()}")
    session = federation.run(**run_of(package, str(pixels)))
    row = federation.task(session, "client-2")
    record = json.loads((federation.folder(row) / "task.json").read_text())
    (tmp_path / "by hand").mkdir()
    np.savez(tmp_path / "seed.npz", pixels=np.zeros(1))
    called = call_entry_point(
        Call(
            package=package,
            entry_point="train",
            folder=tmp_path / "by hand",
            model=tmp_path / "seed.npz",
            record=record,
            isolate=IsolateConfig(enabled=True),
        )
    )
    assert called.answer.failure is None, (tmp_path / "by hand" / "task" / "stderr.log").read_text()
    assert called.answer.num_examples == federation.store.list_clients(session.session_id)[2].last_num_examples


def log_of(federation: Federation, row: TaskRow) -> str:
    return (federation.folder(row) / "stderr.log").read_text()


def test_without_a_source_the_task_says_how_to_name_one(federation: Federation, package: Path) -> None:
    with pytest.raises(SessionFailed):
        federation.run(package=str(package), clients=1)
    (session,) = federation.store.list_sessions()
    row = federation.task(session, "client-0")
    assert row.failure == "exit_code"
    told = log_of(federation, row)
    assert "no data are named for the dataset 'uoft-cs/cifar10'; the configuration names no data" in told
    assert "fedpkg run APPDIR run.data.sources.cifar10=PATH" in told


def test_a_session_is_resumed_with_the_same_data_only(federation: Federation, package: Path, pixels: Path) -> None:
    session = federation.run(**run_of(package, str(pixels)))
    digest = session.config["data"]["digests"]["cifar10"]  # type: ignore[index,call-overload]
    for path in copies_for_apps(federation.home.data):  # as `fedpkg home prune` does
        path.unlink()
    again = federation.resume(session.session_id, rounds=2)
    assert (again.status, len(copies_for_apps(federation.home.data))) == ("finished", 1)
    with np.load(pixels) as arrays:
        np.savez(pixels, x_train=arrays["x_train"] // 2, y_train=arrays["y_train"])
    with pytest.raises(DataError, match=r"data\.sources\.cifar10 has changed .* its digest was ") as caught:
        federation.resume(session.session_id, rounds=3)
    assert digest in caught.value.message


@pytest.mark.parametrize("has_data", [False, True])
def test_an_installed_library_comes_first_unless_data_are_named(tmp_path: Path, has_data: bool) -> None:
    (tmp_path / "flwr_datasets.py").write_text("FederatedDataset = 'theirs'\n")
    runtime = Path(__file__).parents[3] / "fedpkg" / "runtime" / "path"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (runtime, tmp_path)))}
    if has_data:
        environ["FEDPKG_DATASETS"] = str(tmp_path / "none.json")
    code = "import flwr_datasets; print(flwr_datasets.FederatedDataset)"
    ran = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == (
        "<class 'fedpkg.apps.federated_data.federated_dataset.FederatedDataset'>" * has_data or "theirs"
    )


NAMES = """
import importlib, json, sys
import flwr_datasets
found = {}
for module, table in flwr_datasets.MODULES.items():
    made = importlib.import_module(module)
    for name in table:
        getattr(made, name)
try:
    from flwr_datasets.visualization import plot_label_distributions
except ImportError as error:
    found["picture"] = str(error)
try:
    from flwr_datasets.partitioner import Dirichlet
except ImportError as error:
    found["name"] = str(error)
from flwr_datasets.partitioner.iid_partitioner import IidPartitioner
found["loaded"] = sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "PIL", "pandas", "msgspec"})
import fedpkg
found["fedpkg"] = fedpkg.__file__
print(json.dumps(found))
"""


def test_every_name_is_found_where_fedpkg_is_not_installed(tmp_path: Path) -> None:
    """A bare interpreter: only NumPy can be imported beside the standard library."""
    runtime = Path(__file__).parents[3] / "fedpkg" / "runtime" / "path"
    (tmp_path / "numpy").symlink_to(Path(np.__file__).parent)
    libraries = Path(np.__file__).parent.with_name("numpy.libs")
    if libraries.is_dir():
        (tmp_path / "numpy.libs").symlink_to(libraries)
    environ = {"PYTHONPATH": os.pathsep.join(map(str, (runtime, tmp_path))), "PATH": os.environ["PATH"]}
    ran = subprocess.run(
        [sys.executable, "-S", "-c", f"import sitecustomize\n{NAMES}"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert "`fedpkg data describe --picture FILE`" in found["picture"]
    assert "fedpkg has no such name. flwr_datasets.partitioner has: ContinuousPartitioner," in found["name"]
    assert found["loaded"] == []
    assert found["fedpkg"].endswith("compat/fedpkg/__init__.py")


OF_DATASETS = """
import _fedpkg_compat
_fedpkg_compat.serve_apps()
import datasets
if hasattr(datasets, "MODULES"):
    import importlib
    for module, table in datasets.MODULES.items():
        for name in table:
            getattr(importlib.import_module(module), name)
    from datasets.utils.logging import disable_progress_bar
    disable_progress_bar()
    whole = datasets.load_dataset("sklearn/iris")
    joined = datasets.load_dataset("sklearn/iris", split="train+test")
    assert (whole.num_rows, len(joined)) == ({"train": 120, "test": 30}, 150)
    try:
        datasets.load_dataset("sklearn/iris", split="train[:10%]")
    except ValueError as error:
        assert "has no split 'train[:10%]'" in str(error), error
    print("ours")
else:
    print(datasets.__path__[0] if hasattr(datasets, "__path__") else datasets.__file__)
"""


without_datasets = pytest.mark.skipif(find_spec("datasets") is not None, reason="datasets is installed")


@without_datasets
@pytest.mark.parametrize("what", ["nothing", "data", "modules", "module"])
def test_apps_find_datasets_unless_they_have_their_own(tmp_path: Path, what: str) -> None:
    pytest.importorskip("sklearn")
    if what in ("data", "modules"):
        (tmp_path / "datasets").mkdir()
        (tmp_path / "datasets" / ("a.npz" if what == "data" else "mnist.py")).write_text("")
    elif what == "module":
        (tmp_path / "datasets.py").write_text("")
    runtime = Path(__file__).parents[3] / "fedpkg" / "runtime" / "path"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (runtime, tmp_path)))}
    ran = subprocess.run(
        [sys.executable, "-c", OF_DATASETS], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    expected = {"modules": str(tmp_path / "datasets"), "module": str(tmp_path / "datasets.py")}
    assert ran.stdout.strip() == expected.get(what, "ours")


@without_datasets
def test_other_packages_find_no_datasets(tmp_path: Path) -> None:
    """They may have a fallback for its absence."""
    runtime = Path(__file__).parents[3] / "fedpkg" / "runtime" / "path"
    ran = subprocess.run(
        [sys.executable, "-c", "import datasets"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(runtime)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "No module named 'datasets'" in ran.stderr


APP = {
    "client_app": """
from datasets import load_dataset
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr_datasets import FederatedDataset

app = ClientApp()

@app.train()
def train(msg, context):
    divided = FederatedDataset(dataset="uoft-cs/cifar10", partitioners={"train": context.node_config["num-partitions"]})
    mine = divided.load_partition(context.node_config["partition-id"])
    metrics = MetricRecord({"num-examples": len(mine), "all": len(load_dataset("cifar10")["train"])})
    return Message(RecordDict({"arrays": msg.content["arrays"], "metrics": metrics}), reply_to=msg)
""",
    "server_app": """
import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr_datasets import FederatedDataset

app = ServerApp()

@app.main()
def main(grid, context):
    rows = len(FederatedDataset(dataset="cifar10", partitioners={}).load_split("train"))
    strategy = FedAvg(fraction_evaluate=0.0)
    result = strategy.start(grid=grid, initial_arrays=ArrayRecord([np.zeros(2)]), num_rounds=1)
    assert result.train_metrics_clientapp[1]["all"] == rows == 200
""",
}


@pytest.mark.parametrize("isolated", [False, True])
def test_both_parts_of_an_app_have_the_data(
    federation: Federation, tmp_path: Path, pixels: Path, isolated: bool
) -> None:
    if isolated and means().warm is None:
        pytest.skip(f"no isolation here: {means()}")
    folder = make_app(tmp_path / "app")
    for name, text in APP.items():
        (folder / "quick" / f"{name}.py").write_text(text)
    words = [f"run.data.sources.cifar10={pixels}", f"run.isolate.enabled={str(isolated).lower()}"]
    config, _ = run_of_package(folder, words, cache=tmp_path / "cache", clients=3)
    session = federation.run(config)
    assert (session.status, session.error) == ("finished", None)
    sizes = [row.last_num_examples or 0 for row in federation.store.list_clients(session.session_id)]
    assert sum(sizes) == 200
    assert session.config["data"]["sources"] == {"cifar10": str(pixels)}  # type: ignore[index,call-overload]


def test_data_whose_digest_is_another_than_configured_is_not_used(
    federation: Federation, tmp_path: Path, pixels: Path
) -> None:
    folder = make_app(tmp_path / "app")
    words = [f"run.data.sources.cifar10={pixels}", "run.data.digests.cifar10=sha256:0123"]
    config, _ = run_of_package(folder, words, cache=tmp_path / "cache", clients=3)
    with pytest.raises(
        DataError, match=r"data\.sources\.cifar10 has changed .*: its digest was sha256:0123 and is now"
    ):
        federation.run(config)
    assert not federation.store.list_sessions()
