"""Scripts as users of FEDn wrote them in its times, run by `fedpkg exec` as they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from api_support import PACKAGE, write_data

from fedpkg.compute_package.build import build_package

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from warm import warm_python

# FEDn 0.7: the session has the id that the script gives it, and validations come by model.
BY_ID = """
import collections, json, time, uuid
import numpy as np
from fedn.network.api.client import APIClient

client = APIClient("127.0.0.1", 8092)
print(client.set_package("package.tgz", "numpyhelper")["success"])
print(client.set_initial_model("seed.npz")["success"])
seed_model = client.get_initial_model()
session_id = "experiment_" + str(uuid.uuid4())
config = {
    "helper": "numpyhelper", "session_id": session_id, "aggregator": "fedavg",
    "model_id": seed_model["model_id"], "rounds": 3,
}
if not client.start_session(**config)["success"]:
    raise SystemExit("no session")
while not client.session_is_finished(session_id):
    assert client.list_models(session_id)["count"] <= config["rounds"]
    time.sleep(0.1)
accuracies = collections.OrderedDict()
for model in client.list_models(session_id)["result"]:
    for _, validation in client.list_validations(modelId=model["model"]).items():
        metrics = json.loads(validation["data"])
        accuracies.setdefault(model["model"], []).append(metrics["test_accuracy"])
print([float(np.mean(values)) for values in accuracies.values()])
print(any(session["session_id"].startswith("experiment_") for session in client.list_sessions()["result"]))
"""

# FEDn 0.9 to 0.11: waits for the controller, then downloads the whole model trail and compares the models.
TRAIL = """
import os, time
import numpy as np
from fedn import APIClient
from fedn.utils.helpers.helpers import get_helper

client = APIClient(host="localhost", port=8092, secure=False, verify=False)
client.set_active_package("package.tgz", helper="numpyhelper")
client.set_active_model("seed.npz")
options = {"serveropt": "adam", "learning_rate": 1e-2, "beta1": 0.9, "beta2": 0.99, "tau": 1e-4}
result = client.start_session(id="adam", aggregator="fedopt", aggregator_kwargs=options, rounds=2, min_clients=3)
print(result["message"])
while client.get_controller_status()["state"] != "idle":
    time.sleep(0.1)
os.makedirs("models", exist_ok=True)
helper, weights = get_helper("numpyhelper"), []
models = client.get_model_trail()
for number, model in enumerate(models):
    path = os.path.join("models", "round_%d.npz" % number)
    answer = client.download_model(model["model"], path)
    if not answer["success"]:
        print(answer["message"])
    weights.append(helper.load(path)[0])
print(len(models), [bool(np.any(a != b)) for a, b in zip(weights, weights[1:])])
print(client.download_model("no-such-model", "models/none.npz"), os.path.exists("models/none.npz"))
print(len(client.get_validations(model_id=models[-1]["model"])["result"]))
"""

# FEDn 0.20: waits for clients, tries again where a session does not start, and runs one after another.
RETRIES = """
import time
from fedn import APIClient

SECONDS = 0.1
client = APIClient(host="api.example.org/project", token="…", secure=True, verify=True)
for attempt in range(5):
    try:
        status = client.get_controller_status()
        break
    except Exception as error:
        time.sleep(SECONDS)
print(status, client.get_clients_count() >= 1)
while len(client.get_active_clients()["result"]) < 2:
    time.sleep(SECONDS)
started = []
for number in range(2):
    for attempt in range(3):
        active = client.get_active_model()
        session = client.start_session(
            name=f"run-{number}", model_id=active.get("model"), rounds=1, round_timeout=60, helper="numpyhelper"
        )
        if session["message"] == "Session started":
            break
        print(session["message"].partition(chr(10))[0])
        client.set_active_package("package.tgz", "numpyhelper", "means")
    started.append(session["session_id"])
    while not client.session_is_finished(session["session_id"]):
        print(client.get_session_status(session["session_id"]) in ("Created", "Started"), end="", flush=True)
        time.sleep(5 * SECONDS)
print("", [client.get_session_status(one) for one in started])
first, second = (client.get_session(id=one) for one in started)
print(second["seed_model_id"] == client.get_models(session_id=started[0])["result"][0]["model_id"])
"""

# FEDn 0.33: a command with options that tells who took part in the newest session, and writes a table.
PARTICIPATION = """
import csv, json
from datetime import datetime

import click
from config import settings
from fedn import APIClient

client = APIClient(**settings["API"])

def newest():
    def when(session):
        return datetime.strptime(session["committed_at"], "%a, %d %b %Y %H:%M:%S %Z")
    return max(client.get_sessions()["result"], key=when)["session_id"]

@click.command()
@click.option("--session-id", "-s", default=None)
@click.option("--rounds", default=1)
def main(session_id, rounds):
    client.set_active_package(settings["PACKAGE"], "numpyhelper", "means", "of stations")
    session = client.start_session("table", rounds=rounds, validate=True, requested_clients=8)
    client.session_is_finished(session["session_id"]) or client.get_session_status(session["session_id"])
    import time
    while client.get_session(name="table")["status"] != "Finished":
        time.sleep(0.1)
    session_id = session_id or newest()
    with open("table.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["round", "models", "validations"])
        for one in client.get_rounds()["result"]:
            if "combiners" in one and one["round_config"]["session_id"] == session_id:
                number = one["combiners"][0]["data"]["aggregation_time"]["nr_aggregated_models"]
                measured = client.get_validations(model_id=one["combiners"][0]["model_id"], n_max=100)
                rows.writerow([one["round_id"].rpartition(".")[2], number, len(measured["result"])])
    names = {client_["name"] for client_ in client.get_clients(n_max=2)["result"]}
    for name in sorted(names):
        of = client.get_validations(session_id, None, None, name)["result"]
        click.echo(f"{name} {[json.loads(row['data'])['test_accuracy'] for row in of]}")
    click.echo(len(client.get_statuses(session_id, "MODEL_UPDATE")["result"]))

if __name__ == "__main__":
    main()
"""

# Scaleout 1.x: another name for the client, arguments by name, and a session that is stopped.
SCALEOUT = """
import time
from scaleout import Scaleout, ScaleoutModel
from scaleoututil.api.client import Scaleout as Same
from scaleoututil.helpers.helpers import get_helper

assert Same is Scaleout
helper = get_helper("numpyhelper")
ScaleoutModel.from_training_model(helper.load("seed.npz"), helper).save_to_file("again.npz")
client = Scaleout(host="https://edge.example.org", port=443, verify=True, token="…", token_endpoint="/token")
client.set_active_package("package.tgz", helper="numpyhelper", name="means", restart_clients=True)
try:
    client.set_active_model("missing.npz")
except (RuntimeError, FileNotFoundError) as error:
    print(type(error).__name__)
client.set_active_model("again.npz")
session = client.start_session(name="stopped", rounds=100000, round_timeout=60)
print(session["success"], client.get_clients_count(only_active=True))
while client.get_validations_count(session["session_id"]) < 3:
    time.sleep(0.1)
print(client.get_validations(session_id=session["session_id"], sender_client_id="site-2", n_max=1)["count"] >= 1)
print(client.get_rounds(filter={"round_config.session_id": session["session_id"]})["count"] >= 1)
print(client.stop_current_command()["success"])
while client.get_session_status(session["session_id"]) != "Terminated":
    time.sleep(0.1)
print(client.session_is_finished(session["session_id"]), hasattr(client, "stage_model"))
"""

EXPECTED = {
    "by_id": (BY_ID, ["True", "True", "[1.0, 1.0, 1.0]", "True"]),
    "trail": (
        TRAIL,
        [
            "Session started",
            "3 [True, True]",
            "{'success': False, 'message': 'Failed to download model.'} False",
            "3",
        ],
    ),
    "scaleout": (SCALEOUT, ["FileNotFoundError", "True 3", "True", "True", "True", "True False"]),
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write_data(tmp_path)
    np.savez(tmp_path / "seed.npz", **{"0": np.ones(1)})
    build_package(PACKAGE, tmp_path / "package.tgz")
    return tmp_path


def execute(project: Path, script: str, *arguments: str) -> tuple[int, list[str], str]:
    (project / "script.py").write_text(script)
    words = ["exec", "--home", "home", "--data", "data/*.txt", "script.py", *arguments]
    command = [*warm_python(), "-m", "fedpkg", *words]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=project)
    return ran.returncode, ran.stdout.splitlines(), ran.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_a_script_of_its_time_runs_as_it_is(project: Path, name: str) -> None:
    script, expected = EXPECTED[name]
    code, printed, errors = execute(project, script)
    assert (code, printed) == (0, expected), errors


@pytest.mark.slow
def test_a_script_that_tries_again_hears_what_is_missing_and_goes_on(project: Path) -> None:
    code, printed, errors = execute(project, RETRIES)
    assert code == 0, errors
    assert printed[0] == "{'state': 'setup'} True"
    assert printed[1].startswith("No active package")
    assert printed[-2].endswith(" ['Finished', 'Finished']") and printed[-1] == "True"


@pytest.mark.slow
def test_a_command_of_ones_own_gets_its_options_and_imports_what_lies_beside_it(project: Path) -> None:
    settings = {"API": {"host": "localhost", "port": None, "secure": False}, "PACKAGE": "package.tgz"}
    (project / "config.py").write_text(f"settings = {settings!r}\n")
    code, printed, errors = execute(project, PARTICIPATION, "--rounds", "2")
    assert (code, printed) == (0, ["site-1 [1.0, 1.0]", "site-2 [1.0, 1.0]", "6"]), errors
    assert (project / "table.csv").read_text().split() == ["round,models,validations", "2,3,3", "1,3,3"]
