"""A notebook as FEDn's users have it runs from top to bottom, once `fedn` is served."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

nbclient = pytest.importorskip("nbclient")
pytest.importorskip("matplotlib")
pytest.importorskip("ipykernel")
import nbformat  # noqa: E402

PACKAGE = Path(__file__).resolve().parents[2] / "packages" / "nearest-mean"
CELLS = (
    "import fedpkg; fedpkg.serve_fedn_imports(home='home', data='data/*.txt', executor={'name': 'process'})",
    """import json
import time

import matplotlib
matplotlib.use("agg")
import matplotlib.pyplot as plt
from fedn import APIClient

client = APIClient("127.0.0.1", 8092)""",
    f"""print(client.set_active_package({str(PACKAGE)!r}, "numpyhelper", "means")["message"])
print(client.set_active_model("seed.npz")["message"])
seed_model = client.get_active_model()""",
    """started = client.start_session(
    name="experiment", aggregator="fedavg", model_id=seed_model["model"], rounds=3, helper="numpyhelper")
session_id = started["session_id"]
while not client.session_is_finished(session_id):
    time.sleep(0.2)
print(client.get_session_status(session_id))""",
    """accuracies = {}
for model in client.get_model_trail():
    for validation in client.get_validations(model_id=model["model"])["result"]:
        accuracy = json.loads(validation["data"])["test_accuracy"]
        accuracies.setdefault(validation["sender"]["name"], []).append(accuracy)
for name, values in sorted(accuracies.items()):
    plt.plot(range(1, len(values) + 1), values, label=name)
plt.legend()
plt.savefig("accuracy.png")
print({name: len(values) for name, values in sorted(accuracies.items())})""",
    "session = fedpkg.Session.open('home'); session",
    "session.plot('test_accuracy')",
)

# As the tutorials of FEDn 0.6 to 0.8 write it: other names, a session's id by the notebook, validations by model.
FORMER = (
    CELLS[0],
    """from fedn import APIClient
from fedn.dashboard.plots import Plot
from fedn.network.clients.client import Client
import collections, copy, json, time, uuid
import matplotlib
matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np

DISCOVER_HOST = '127.0.0.1'
DISCOVER_PORT = 8092
client = APIClient(DISCOVER_HOST, DISCOVER_PORT)""",
    f"""client.set_package({str(PACKAGE)!r}, 'numpyhelper')
client.set_initial_model('seed.npz')
seed_model = client.get_initial_model()""",
    """for aggregator in ("fedavg", "fedopt"):
    session_id = "experiment_" + aggregator
    result = client.start_session(**{
        "helper": "numpyhelper", "session_id": session_id, "aggregator": aggregator,
        "model_id": seed_model['model_id'], "rounds": 2})
    while not client.session_is_finished(session_id):
        time.sleep(0.2)
    print(result["success"])""",
    """def mean_accuracy(session_id):
    acc = collections.OrderedDict()
    for model in client.list_models(session_id=session_id)["result"]:
        model_id = model["model"]
        validations = client.list_validations(modelId=model_id)
        for _ , validation in validations.items():
            metrics = json.loads(validation['data'])
            try:
                acc[model_id].append(metrics['test_accuracy'])
            except KeyError:
                acc[model_id] = [metrics['test_accuracy']]
    means = [np.mean(data) for data in acc.values()]
    means.reverse()
    return means

mean_acc_fedavg, mean_acc_fedopt = mean_accuracy("experiment_fedavg"), mean_accuracy("experiment_fedopt")
x = range(1, len(mean_acc_fedavg) + 1)
plt.plot(x, mean_acc_fedavg, x, mean_acc_fedopt)
plt.legend(['FedAvg', 'FedAdam'])
plt.savefig("accuracy.png")
print(len(mean_acc_fedavg), len(mean_acc_fedopt))""",
)
# FEDn 0.9: arguments by position, before there was `aggregator_kwargs`; validations of a session.
BY_POSITION = (
    *FORMER[:2],
    f"""client.set_active_package({str(PACKAGE)!r}, 'numpyhelper')
client.set_active_model('seed.npz')
seed_model = client.get_active_model()""",
    """result = client.start_session("experiment", "fedavg", seed_model["model"], 60, 2)
session_id = result["config"]["session_id"]
while client.get_session_status(session_id) != 'Finished':
    time.sleep(0.2)
print(client.get_session(session_id)["session_config"]["rounds"])""",
    """acc = collections.OrderedDict()
for validation in client.get_validations(session_id)['result']:
    try:
        acc[validation['model_id']].append(json.loads(validation['data'])['test_accuracy'])
    except KeyError:
        acc[validation['model_id']] = [json.loads(validation['data'])['test_accuracy']]
plt.plot(range(len(acc)), [np.mean(values) for values in acc.values()])
plt.savefig("accuracy.png")
print([len(values) for values in acc.values()])""",
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "matplotlib"))
    (tmp_path / "data").mkdir()
    for number in (1, 2, 3):
        np.savetxt(tmp_path / "data" / f"site-{number}.txt", np.arange(4.0) + 10 * number)
    np.savez(tmp_path / "seed.npz", **{"0": np.zeros(1)})
    return tmp_path


def executed(project: Path, cells: Sequence[str]) -> tuple[Any, list[str]]:
    """The notebook after a run from top to bottom, and what each cell has printed."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of nbclient and its sockets
        nbclient.NotebookClient(
            notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(project)}}
        ).execute()
    printed = [
        "".join(out["text"] for out in cell.outputs if out.output_type == "stream" and out.name == "stdout")
        for cell in notebook.cells
    ]
    return notebook, printed


@pytest.mark.soak
@pytest.mark.parametrize(("cells", "said"), [(FORMER, ["True\nTrue\n", "2 2\n"]), (BY_POSITION, ["2\n", "[3, 3]\n"])])
def test_a_notebook_of_former_versions_runs_as_it_is(project: Path, cells: Sequence[str], said: list[str]) -> None:
    _, printed = executed(project, cells)
    assert printed[3:] == said
    assert (project / "accuracy.png").stat().st_size > 1000


@pytest.mark.soak
@pytest.mark.slow
def test_a_notebook_sets_package_and_seed_starts_a_session_polls_and_plots(project: Path) -> None:
    notebook, printed = executed(project, CELLS)
    assert printed[2] == "Package uploaded\nModel added successfully\n"
    assert printed[3] == "Finished\n"
    assert printed[4] == "{'site-1': 3, 'site-2': 3, 'site-3': 3}\n"
    table, plot = ({kind for out in cell.outputs for kind in out.get("data", ())} for cell in notebook.cells[-2:])
    assert "text/html" in table, "a session shows itself as a table"
    assert "image/png" in plot
    assert (project / "accuracy.png").stat().st_size > 1000
