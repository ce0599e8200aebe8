"""`fedpkg.APIClient`: FEDn's methods on a home of this machine."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from api_support import LISTS, PACKAGE, client_in, failed, finish
from warm import warm_python

import fedpkg
from fedpkg.api_client import APIClient
from fedpkg.errors import ServerOnly
from fedpkg.session import background

SESSION = {"session_id", "name", "status", "session_config", "seed_model_id", "committed_at"}
MODEL = {"id", "model", "model_id", "name", "parent_model", "session_id", "committed_at"}
PACKAGE_KEYS = {"id", "package_id", "name", "description", "file_name", "storage_file_name", "helper", "active"}
ROUND = {"round_id", "status", "round_config", "round_data", "combiners"}
VALIDATION = {"validation_id", "model_id", "data", "correlation_id", "timestamp", "session_id", "meta", "sender"}
STATUS = {"status_id", "status", "timestamp", "log_level", "data", "correlation_id", "type", "session_id", "sender"}
CLIENT = {"client_id", "name", "combiner", "combiner_preferred", "ip", "status", "last_seen", "package"}
COMBINER = {"combiner_id", "name", "address", "fqdn", "ip", "parent", "port", "updated_at"}
KEYS = {
    "clients": CLIENT,
    "combiners": COMBINER,
    "models": MODEL,
    "packages": PACKAGE_KEYS,
    "rounds": ROUND,
    "sessions": SESSION,
    "statuses": STATUS,
    "validations": VALIDATION,
}
HOW_MANY = {
    "clients": 3,
    "combiners": 1,
    "models": 3,  # the seed and one a round
    "packages": 1,
    "rounds": 2,
    "sessions": 1,
    "statuses": 12,  # two rounds of three clients that train and validate
    "validations": 6,
}


@pytest.mark.parametrize("noun", LISTS)
def test_lists_counts_and_single_rows_have_fedns_shapes(used: tuple[APIClient, str, Path], noun: str) -> None:
    client, _session_id, _folder = used
    answer = getattr(client, f"get_{noun}")()
    assert answer.keys() == {"count", "result"}
    assert answer["count"] == len(answer["result"]) == HOW_MANY[noun] == getattr(client, f"get_{noun}_count")()
    assert len(getattr(client, f"get_{noun}")(n_max=1)["result"]) == 1
    one = "status" if noun == "statuses" else noun.removesuffix("s")
    for row in answer["result"]:
        assert row.keys() >= KEYS[noun]
        assert getattr(client, f"get_{one}")(row["id"]) == row
    assert getattr(client, f"get_{one}")("nobody") == failed("Entity with id: nobody not found")
    assert json.loads(json.dumps(answer)) == answer


def test_a_session_says_how_it_stands(used: tuple[APIClient, str, Path]) -> None:
    client, session_id, _folder = used
    row = client.get_session(session_id)
    assert (row["name"], row["status"]) == ("first", "Finished")
    assert client.get_session(name="first") == row == client.get_session("first")
    config = row["session_config"]
    assert (config["aggregator"], config["rounds"], config["round_timeout"]) == ("fedavg", 2, 60)
    assert (config["clients_required"], config["buffer_size"], config["validate"]) == (1, -1, True)
    assert config["helper_type"] == "numpyhelper"
    assert client.get_session_status(session_id) == "Finished"
    assert client.session_is_finished(session_id) is True
    assert client.get_session_status("nobody") == "Could not retrieve session status."
    assert client.session_is_finished("nobody") is False
    assert client.get_sessions(name="other") == {"count": 0, "result": []}
    assert client.get_controller_status() == {"state": "idle"}


def test_models_follow_from_the_uploaded_seed(used: tuple[APIClient, str, Path]) -> None:
    client, session_id, folder = used
    trail = client.get_model_trail()
    seed, first, last = trail
    assert seed["name"] == "seed.npz" and seed["session_id"] is None and seed["parent_model"] is None
    assert (first["parent_model"], last["parent_model"]) == (seed["model"], first["model"])
    assert [one["name"] for one in (first, last)] == ["first_1", "first_2"]
    assert client.get_active_model() == last
    assert client.get_model_trail(last["id"], include_self=False, reverse=False) == [first, seed]
    assert client.get_model_trail(n_max=1, include_self=False) == [first]
    assert client.get_models(session_id)["result"] == [last, first]
    assert client.get_session(session_id)["seed_model_id"] == seed["model_id"]
    said = client.download_model(last["model_id"], str(folder / "last.npz"))
    assert said == {"success": True, "message": "Model downloaded successfully."}
    with np.load(folder / "last.npz") as arrays:
        assert np.allclose(arrays["0"], 1 / 4 + 3.5 * 3 / 4)  # the mean of the clients' means is 3.5
    assert client.download_model(seed["id"], str(folder / "again.npz"))["success"]
    assert (folder / "again.npz").read_bytes() == (folder / "seed.npz").read_bytes()
    assert client.download_model("nobody", str(folder / "no.npz")) == failed("Failed to download model.")


def test_what_clients_measured_is_found_by_model_session_and_sender(used: tuple[APIClient, str, Path]) -> None:
    client, session_id, _folder = used
    last = client.get_active_model()["id"]
    rows = client.get_validations(model_id=last)["result"]
    assert sorted(row["sender"]["name"] for row in rows) == ["site-1", "site-2", "site-3"]
    assert all(json.loads(row["data"]) == {"test_accuracy": 1.0} for row in rows)
    assert client.get_validations(session_id, sender_name="site-1", receiver_role="COMBINER")["count"] == 2
    assert client.get_statuses(session_id, "MODEL_UPDATE", sender_name="site-2")["count"] == 2
    assert client.get_validations("nobody") == client.get_models("nobody") == {"count": 0, "result": []}
    with pytest.raises(TypeError, match="there is no filter sendr"):
        client.list_validations(**{"sendr.name": "site-1"})


def test_rounds_have_their_configuration_and_combiner(used: tuple[APIClient, str, Path]) -> None:
    client, session_id, _folder = used
    last = client.get_rounds()["result"][0]
    assert (last["round_id"], last["status"]) == (f"{session_id}.2", "Finished")
    assert last["round_config"]["selected_clients"] == ["site-1", "site-2", "site-3"]
    assert last["round_config"]["session_id"] == session_id
    (combiner,) = last["combiners"]
    assert combiner["data"]["aggregation_time"]["nr_aggregated_models"] == 3
    assert combiner["data"]["nr_required_updates"] == 3
    assert last["round_data"]["reduce"].keys() == {"time_aggregate_model", "time_fetch_model", "time_load_model"}


def test_the_active_package_is_a_copy_with_its_checksum(used: tuple[APIClient, str, Path]) -> None:
    client, _session_id, folder = used
    package = client.get_active_package()
    assert (package["name"], package["file_name"], package["active"]) == ("means", "nearest-mean.tar.gz", True)
    assert client.get_package_checksum()["checksum"] == package["package_id"]
    said = client.download_package(str(folder / "package.tgz"))
    assert said == {"success": True, "message": "Package downloaded successfully."}
    assert client.get_package() == package


def test_clients_combiner_and_attributes_are_told(used: tuple[APIClient, str, Path]) -> None:
    client, _session_id, _folder = used
    active = client.get_active_clients("combiner")
    assert [row["client_id"] for row in active["result"]] == ["site-1", "site-2", "site-3"]
    assert client.get_active_clients("another")["count"] == 0
    assert client.get_current_attributes(["site-1", "site-2"]) == {"site-1": {"charging": "yes"}, "site-2": {}}
    with pytest.raises(ServerOnly, match="no server here"):
        client.get_client_config()


def test_names_of_older_versions_answer_in_their_shapes(used: tuple[APIClient, str, Path]) -> None:
    client, session_id, _folder = used
    last = client.get_latest_model()["model_id"]
    assert client.list_models(session_id, limit=1)["result"][0]["model"] == last
    validations = client.list_validations(modelId=last)
    assert len(validations) == 3
    for id, row in validations.items():
        assert (row["id"], row["modelId"], row["sessionId"]) == (id, last, session_id)
        assert json.loads(row["data"])["test_accuracy"] == 1.0
    assert client.list_sessions(limit=5, skip=1) == {"count": 1, "result": []}
    assert client.list_compute_packages()["count"] == 1
    assert client.list_clients() == client.get_clients() and client.list_combiners() == client.get_combiners()
    rounds = client.list_rounds()
    assert list(rounds) == [f"{session_id}.2", f"{session_id}.1"]
    assert all(one["combiners"] and one["reducer"].keys() >= {"time_aggregate_model"} for one in rounds.values())
    assert client.get_events(sender_name="site-1")["count"] == 4
    assert client.get_initial_model()["model_id"] == client.get_model_trail()[0]["model_id"]


@pytest.mark.slow
def test_a_client_is_asked_for_predictions(used: tuple[APIClient, str, Path]) -> None:
    client, _session_id, _folder = used
    assert client.start_predictions("mine") == {"success": True, "message": "Prediction session started"}
    background.wait()
    answer = client.get_predictions(correlation_id="mine")
    assert answer["count"] == 3
    row = having(answer["result"], "site-1")
    assert len(json.loads(row["data"])["prediction"]) == 4
    assert client.get_predictions(sender_name="site-2")["count"] == 1


def having(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(row for row in rows if row["sender"]["name"] == name)


@pytest.mark.slow
def test_a_session_goes_on_and_another_begins_where_it_ended(tmp_path: Path) -> None:
    client = client_in(tmp_path, clients=2)
    client.set_package(str(PACKAGE), "numpyhelper")  # without a seed: `build` makes it
    first = finish(client, session_id="experiment one", rounds=1)
    assert first.startswith("experiment-one-")
    assert client.session_is_finished("experiment one"), "FEDn 0.6 to 0.8 ask by the id that a script gives"
    assert client.list_models("experiment one")["count"] == 1
    started = {"success": True, "message": "Session started", "session_id": first}
    assert client.continue_session(first, rounds=1) == started
    assert not client.session_is_finished(first)
    background.wait()
    assert client.session_is_finished(first)
    assert client.get_rounds_count() == 2
    end = client.get_active_model()
    second = finish(client, rounds=1, aggregator="fedopt", aggregator_kwargs={"serveropt": "yogi", "tau": 1e-3})
    row = client.get_session(second)
    assert (row["seed_model_id"], row["session_config"]["aggregator"]) == (end["id"], "fedyogi")
    assert json.loads(row["session_config"]["aggregator_kwargs"])["learning_rate"] == 1e-3
    assert [one["name"] for one in client.get_model_trail()][-2:] == [end["name"], "nearest-mean_1"]


@pytest.mark.soak
@pytest.mark.slow
def test_a_model_of_another_package_begins_no_session_by_itself(tmp_path: Path) -> None:
    other = PACKAGE.parent / "quadratic"
    fedpkg.run(other, tmp_path / "home", progress=False, rounds=1, executor={"name": "process"})
    client = client_in(tmp_path, clients=2)
    client.set_active_package(str(PACKAGE), "numpyhelper", "means")
    session_id = finish(client, rounds=1)
    assert client.get_session(session_id)["seed_model_id"] == f"{session_id}.0"
    assert client.get_sessions_count() == 2


def test_two_sessions_run_side_by_side_and_a_running_one_is_not_continued(tmp_path: Path) -> None:
    client = client_in(tmp_path, clients=2)
    client.set_active_package(str(PACKAGE), "numpyhelper", "means")
    words = {"rounds": 1000, "round_timeout": 60}
    ids = [client.start_session(name, **words)["session_id"] for name in ("a", "b")]
    assert client.get_controller_status() == {"state": "monitoring"}
    assert [client.get_session_status(id) for id in ids] == ["Started", "Started"]
    assert client.continue_session(ids[0]) == failed("Session is already running.")
    background.stop()
    background.wait()
    assert [client.get_session_status(id) for id in ids] == ["Terminated", "Terminated"]
    assert all(client.session_is_finished(id) for id in ids), "who waits for it does not wait for ever"


def test_failures_are_answers(tmp_path: Path) -> None:
    client = client_in(tmp_path, clients=2)
    assert "message" in client.get_active_model() and "message" in client.get_model_trail()
    assert client.get_active_package() == failed("Entity not found")
    assert "No active package" in client.start_session()["message"]
    assert client.get_controller_status() == {"state": "setup"}
    client.set_active_package(str(PACKAGE), "numpyhelper", "means")
    assert "nosuch" in client.start_session(aggregator="nosuch")["message"]
    assert "serveropt" in client.start_session(aggregator="fedopt", aggregator_kwargs='{"serveropt": "sgd"}')["message"]
    assert "a JSON string" in client.start_session(aggregator_kwargs="{")["message"]
    assert "cannot be read" in client.start_session(server_functions=type("Mine", (), {}))["message"]
    assert "there is no model" in client.start_session(model_id="nobody")["message"]
    assert "there is no session" in client.continue_session("nobody")["message"]
    assert client.get_sessions_count() == 0


def test_the_first_replies_fill_a_buffer(tmp_path: Path) -> None:
    client = client_in(tmp_path, clients=4)
    client.set_active_package(str(PACKAGE), "numpyhelper", "means")
    finish(client, rounds=1, round_buffer_size=2, validate=False, delete_models=False, min_clients=2)
    data = client.get_rounds()["result"][0]["combiners"][0]["data"]
    assert (data["nr_expected_updates"], data["nr_required_updates"]) == (4, 2)
    assert client.get_validations_count() == 0


SCRIPT = """
import sys
from fedn import APIClient
import fedn.network.api.client
from fedn.network.api.client import APIClient as Same
from fedn.utils.helpers.helpers import get_helper

assert Same is APIClient and fedn.network.api.client.APIClient is APIClient
client = APIClient(host="127.0.0.1", port=8092)
client.set_active_package(sys.argv[1], "numpyhelper", "means")
print(client.start_session(name="by-script", rounds=1)["message"], get_helper("numpyhelper") is not None, __name__)
"""


@pytest.mark.slow
def test_a_script_of_fedn_runs_and_its_session_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    words = ["exec", "--home", tmp_path / "home", "--clients", "2", tmp_path / "script.py", PACKAGE]
    command = [*warm_python(), "-m", "fedpkg", *map(str, words)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "Session started True __main__\n"), ran.stderr
    session = fedpkg.Session.open(tmp_path / "home", "by-script")
    assert (session.status, len(session.rounds)) == ("finished", 1)


FUNCTIONS = """
import sys
from fedn import APIClient
from fedn.network.combiner.hooks.allowed_import import Dict, List, ServerFunctionsBase, Tuple, np

class ServerFunctions(ServerFunctionsBase):
    def client_selection(self, client_ids: List[str]) -> List:
        return client_ids[:1]

    def aggregate(self, previous_global, client_updates: Dict):
        return [np.full(1, 42.0)]

client = APIClient()
client.set_active_package(sys.argv[1], "numpyhelper", "means")
print(client.start_session(name="functions", rounds=1, server_functions=ServerFunctions)["message"])
"""


@pytest.mark.slow
def test_server_functions_of_a_script_run(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(FUNCTIONS)
    words = ["exec", "--home", tmp_path / "home", "--clients", "2", tmp_path / "script.py", PACKAGE]
    ran = subprocess.run([*warm_python(), "-m", "fedpkg", *map(str, words)], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "Session started\n"), ran.stderr
    session = fedpkg.Session.open(tmp_path / "home")
    assert (session.status, session.rounds[0].num_ok) == ("finished", 1), ran.stderr
    assert [tensor.tolist() for tensor in session.model().values()] == [[42.0]]


@pytest.mark.slow
def test_a_split_learning_session_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).standard_normal((60, 6)).astype(np.float32)
    (tmp_path / "data").mkdir()
    for number, columns in ((1, slice(0, 4)), (2, slice(4, 6))):
        np.savez(tmp_path / "data" / f"{number}.npz", X_train=x[:40, columns], X_test=x[40:, columns])
    np.savez(tmp_path / "labels.npz", y_train=(x[:40, 0] > 0) * 1.0, y_test=(x[40:, 0] > 0) * 1.0)
    client = client_in(tmp_path, data=str(tmp_path / "data" / "*.npz"))
    client.set_active_package(str(PACKAGE.parent / "split-fedn"), "splitlearninghelper", "split")
    assert "labels" in client.start_splitlearning_session("no labels")["message"]
    monkeypatch.setenv("FEDN_LABELS_PATH", str(tmp_path / "labels.npz"))
    started = client.start_splitlearning_session("split", rounds=2, round_timeout=60)
    assert started["message"] == "Session started", started
    background.wait()
    assert client.get_session_status(started["session_id"]) == "Finished"
    assert client.get_models(started["session_id"]) == {"count": 0, "result": []}


LONG = """
import sys, time
from fedn import APIClient
client = APIClient()
client.set_active_package(sys.argv[1], "numpyhelper", "means")
print(client.start_session(name="long", rounds=100000)["message"], flush=True)
if sys.argv[2] == "sleep":
    time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.parametrize("what", ["sleep", "end"])
@pytest.mark.every_push("sleep")
def test_ctrl_c_stops_the_sessions_of_a_script(tmp_path: Path, what: str) -> None:
    (tmp_path / "script.py").write_text(LONG)
    words = ["exec", "--home", tmp_path / "home", "--clients", "2", tmp_path / "script.py", PACKAGE, what]
    command = [*warm_python(), "-m", "fedpkg", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as script:
        assert script.stdout is not None
        assert script.stdout.readline() == "Session started\n"
        script.send_signal(signal.SIGINT)
        _out, err = script.communicate(timeout=60)
    assert script.returncode == 130, err
    assert "interrupted" in err.splitlines()[-1]
    assert fedpkg.Session.open(tmp_path / "home").status in ("stopped", "interrupted")


INSTALLED = """
import sys
sys.path.insert(0, sys.argv[1])
import fedpkg
fedpkg.serve_fedn_imports(sys.argv[2])
import fedn, scaleout, scaleoututil.api.client
print(fedn.APIClient, scaleout.Scaleout is scaleoututil.api.client.Scaleout)
"""


@pytest.mark.parametrize("name", ["fedn", "scaleout"])
def test_what_is_installed_stays_what_it_is_and_the_others_are_served(tmp_path: Path, name: str) -> None:
    for folder in ("fedn", "scaleout"):  # a mere folder of that name is no module
        (tmp_path / folder).mkdir()
    (tmp_path / name / "__init__.py").write_text("APIClient = Scaleout = 'the real one'\n")
    command = [*warm_python(), "-c", INSTALLED, str(tmp_path), str(tmp_path / "home")]
    ran = subprocess.run(command, capture_output=True, text=True)
    served = "<class 'fedpkg.fedn_imports.APIClient'>"
    assert ran.stdout == ("the real one True\n" if name == "fedn" else f"{served} False\n"), ran.stderr
    assert ran.stderr.count("is installed: scripts import") == 1 and f"{name} is installed" in ran.stderr


def test_a_fault_of_a_script_is_the_scripts(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import sys\nif sys.argv[1] == 'exit': sys.exit(7)\nraise ValueError('mine')\n")
    command = [*warm_python(), "-m", "fedpkg", "exec", "--home", str(tmp_path / "home"), str(tmp_path / "script.py")]
    ended = subprocess.run([*command, "raise"], capture_output=True, text=True)
    assert ended.returncode == 1 and ended.stderr.splitlines()[-1] == "ValueError: mine"
    assert "fault of fedpkg" not in ended.stderr and "runpy" not in ended.stderr
    assert subprocess.run([*command, "exit"], capture_output=True).returncode == 7
