"""A notebook as FEDn's users have it runs from top to bottom, once `fedn` is served."""

from __future__ import annotations

import warnings
from pathlib import Path

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


@pytest.mark.slow
def test_a_notebook_sets_package_and_seed_starts_a_session_polls_and_plots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "matplotlib"))
    (tmp_path / "data").mkdir()
    for number in (1, 2, 3):
        np.savetxt(tmp_path / "data" / f"site-{number}.txt", np.arange(4.0) + 10 * number)
    np.savez(tmp_path / "seed.npz", **{"0": np.zeros(1)})
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of nbclient and its sockets
        nbclient.NotebookClient(
            notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
        ).execute()
    printed = [
        "".join(out["text"] for out in cell.outputs if out.output_type == "stream" and out.name == "stdout")
        for cell in notebook.cells
    ]
    assert printed[2] == "Package uploaded\nModel added successfully\n"
    assert printed[3] == "Finished\n"
    assert printed[4] == "{'site-1': 3, 'site-2': 3, 'site-3': 3}\n"
    table, plot = ({kind for out in cell.outputs for kind in out.get("data", ())} for cell in notebook.cells[-2:])
    assert "text/html" in table, "a session shows itself as a table"
    assert "image/png" in plot
    assert (tmp_path / "accuracy.png").stat().st_size > 1000
