"""Apps in the shape of public ones give what a plain program gives, wherever their tasks run, and after a kill."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from message_apps import PYPROJECT, make_app
from public_apps import Apps, task_of
from sklearn.datasets import load_iris
from zygotes import shared_zygotes

from fedpkg.controller.events import RoundFinished

__all__ = ["shared_zygotes"]


def mean(parts: list[Any], weights: list[float]) -> Any:
    """The weighted mean of tensors, arrays, or dictionaries of them."""
    if isinstance(parts[0], dict):
        return {name: mean([part[name] for part in parts], weights) for name in parts[0]}
    return sum(weight * part for part, weight in zip(parts, weights, strict=True)) / sum(weights)


def assert_close(found: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for name in expected:
            assert_close(found[name], expected[name])
    else:
        np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.soak
def test_quickstart_is_federated_averaging(apps: Apps) -> None:
    session = apps.run("quickstart", "batch-size=1000", "local-epochs=1")
    with task_of("quickstart") as task:
        model, state = task.Net(), torch.load(apps.saved / "first_model.pt")
        for _ in range(2):
            parts, counts = [], []
            for number in range(4):
                model.load_state_dict(state)
                loader, _ = task.load_data(number, 4, 1000)
                task.train(model, loader, 1, 0.1)
                parts.append(copy.deepcopy(model.state_dict()))
                counts.append(len(loader.dataset))
            state = mean(parts, counts) | {"norm.num_batches_tracked": parts[-1]["norm.num_batches_tracked"]}
    final = torch.load(apps.saved / "final_model.pt")
    assert_close(final, state)
    assert final["norm.num_batches_tracked"].dtype == torch.int64
    recorded = apps.federation.model(f"{session.session_id}.2")
    assert all(torch.equal(recorded[name], final[name]) for name in final)


@pytest.mark.soak
@pytest.mark.parametrize("way", ["whole", "killed"])
def test_advanced_keeps_state_stops_early_and_saves_the_best(apps: Apps, way: str) -> None:
    if way == "whole":
        session = apps.run("advanced")
    else:  # in its third round
        session = apps.run_killed(apps.config("advanced", executor="resident"), kill_at=22)
    with task_of("advanced") as task:
        torch.manual_seed(7)
        model = task.make_model()
        state, velocities, parts = (
            copy.deepcopy(model.state_dict()),
            [{}, {}, {}],
            [task.load_data(i, 3) for i in range(3)],
        )
        counts, losses = [len(part[0]) for part in parts], []
        server = {"0": task.loss_and_accuracy(model, task.wines())[0]}
        while min(server.values()) >= 0.5 and len(losses) < 8:
            after, told = [], []
            for part, velocity in zip(parts, velocities, strict=True):
                model.load_state_dict(state)
                told.append(task.step(model, part, 0.05, 0.8, velocity))
                after.append(copy.deepcopy(model.state_dict()))
            state = mean(after, counts)
            model.load_state_dict(state)
            losses.append(mean(told, counts))
            server[str(len(losses))] = task.loss_and_accuracy(model, task.wines())[0]
    assert 2 < len(losses) < 8, "the settings of the app end it early"
    results = json.loads((apps.saved / "results.json").read_text())
    assert_close([one["loss"] for one in results["train"].values()], losses)
    assert [one["seen"] for one in results["train"].values()] == list(range(1, len(losses) + 1))
    assert results["evaluate"]["2"]["rounds"] == [1, 2]
    assert_close({key: one["loss"] for key, one in results["server"].items()}, server)
    assert_close(torch.load(apps.saved / "best_model.pt"), dict(state))
    rounds = apps.federation.store.list_rounds(session.session_id)
    assert [row.strategy_metrics["server_loss"] for row in rounds] == [
        results["server"][str(row.round_number)]["loss"] for row in rounds
    ]


@pytest.mark.soak
def test_mods_of_the_app_are_around_those_of_a_function(apps: Apps) -> None:
    apps.run("custom_mods")
    trained, asked, again = json.loads((apps.saved / "found.json").read_text())
    assert trained == [{"x": (5 + 1) * 2, "y": 10 * 2 + 1, "num-examples": 1, "calls": 1}] * 3
    assert asked == [{"x": 5 + 1, "y": 10 + 1, "num-examples": 1, "calls": 2}] * 3
    assert again == [{**trained[0], "calls": 3}] * 3


@pytest.mark.soak
def test_analytics_adds_histograms(apps: Apps) -> None:
    session = apps.run("analytics")
    whole, two = json.loads((apps.saved / "found.json").read_text())
    data = load_iris()
    for found in (whole, two):
        rows = np.concatenate([data.data[node - 1 :: 3] for node in found["nodes"]])
        expected = [np.histogram(column, bins=7, range=(0, 8))[0].tolist() for column in rows.T]
        assert list(found["histograms"].values()) == expected
        assert list(found["histograms"]) == data.feature_names
    assert (len(whole["nodes"]), len(two["nodes"])) == (3, 2)
    assert not apps.federation.digests(session.session_id), "there is no model"


@pytest.mark.soak
def test_phases_of_an_app_are_rounds_of_one_session(apps: Apps) -> None:
    session = apps.run("phases")
    with task_of("phases") as task:
        parts = [task.load_data(number, 3) for number in range(3)]
        xs, ys = np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])
        scaled = [((x - xs.mean(0)) / xs.std(0), y - ys.mean()) for x, y in parts]
        w, counts, found = np.zeros(10), [len(y) for _, y in parts], []
        for _ in range(4):
            w = mean([task.step(w, x, y, 0.1) for x, y in scaled], counts)
            found.append(w)
        median = np.median([task.step(w, x, y, 0.1) for x, y in scaled], axis=0)
    saved = np.load(apps.saved / "w.npz")
    np.testing.assert_allclose(saved["by_hand"], found[1], rtol=1e-9)
    np.testing.assert_allclose(saved["mean"], found[3], rtol=1e-9)
    np.testing.assert_allclose(saved["median"], median, rtol=1e-9)
    assert [row.num_ok for row in apps.federation.store.list_rounds(session.session_id)] == [6, 3, 3, 3, 3]


@pytest.mark.parametrize("strategy", ["decaying", "largest"])
@pytest.mark.every_push("largest")
def test_a_strategy_of_the_app_decides(apps: Apps, strategy: str) -> None:
    session = apps.run("own_strategy", f"strategy={strategy}")
    result = json.loads((apps.saved / "result.json").read_text())
    w, own = np.ones(4), [np.arange(4.0) * node for node in (1, 2, 3, 4)]
    rounds = apps.federation.store.list_rounds(session.session_id)
    if strategy == "decaying":
        for lr in (0.4, 0.2, 0.1):
            w = (w + mean([w + lr * (one - w) for one in own], [10, 20, 30, 40])) / 2
        assert [one["replies"] for one in result["train"].values()] == [4, 4, 4]
        assert_close([one["lr"] for one in result["train"].values()], [0.4, 0.2, 0.1])
    else:
        for node in (3, 4, 3):
            w = w + 0.8 * (own[node - 1] - w)
        assert [one["node"] for one in result["train"].values()] == [3, 4, 3]
        assert [row.num_ok for row in rounds] == [2, 2, 2]
        assert [row.strategy_metrics["train_node"] for row in rounds] == [3, 4, 3]
    np.testing.assert_allclose(result["w"], w)


@pytest.mark.soak
def test_vertical_learning_is_that_of_the_whole_net(apps: Apps) -> None:
    apps.run("vertical")
    with task_of("vertical") as task:
        columns, labels = [task.load_columns(number, 3) for number in range(3)], task.load_labels()
        bottoms = [task.make_bottom(number, part.shape[1]) for number, part in enumerate(columns)]
        top, losses = task.make_top(3), []
        optimizer = torch.optim.SGD([p for part in (*bottoms, top) for p in part.parameters()], lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            joined = torch.cat([bottom(part) for bottom, part in zip(bottoms, columns, strict=True)], dim=1)
            loss = torch.nn.functional.cross_entropy(top(joined), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    found = torch.load(apps.saved / "result.pt")
    assert_close(found["losses"], losses)
    assert_close(found["top"], {name: one.detach() for name, one in top.state_dict().items()})
    for one, bottom in zip(found["bottoms"], bottoms, strict=True):
        assert_close(one, dict(bottom.state_dict()))


@pytest.mark.soak
def test_scikit_learn_with_a_list_of_arrays(apps: Apps) -> None:
    apps.run("scikit_logistic")
    with task_of("scikit_logistic") as task:
        parts, arrays, accuracy = (
            [task.load_data(number, 3) for number in range(3)],
            [np.zeros((1, 30)), np.zeros(1)],
            [],
        )
        counts = [len(y) for _, y in parts]
        for _ in range(3):
            fitted = [task.fit(task.get_model([one.copy() for one in arrays]), x, y) for x, y in parts]
            arrays = [mean([one[place] for one in fitted], counts) for place in range(2)]
            accuracy.append(mean([task.get_model(arrays).score(x, y) for x, y in parts], counts))
    found = np.load(apps.saved / "model.npz")
    np.testing.assert_allclose(found["coef"], arrays[0], rtol=1e-9)
    np.testing.assert_allclose(found["intercept"], arrays[1], rtol=1e-9)
    np.testing.assert_allclose(found["accuracy"], accuracy)


@pytest.mark.soak
def test_personalised_layers_stay_at_their_client(apps: Apps) -> None:
    apps.run("personalised")
    with task_of("personalised") as task:
        parts = [task.load_data(number, 3) for number in range(3)]
        nets, counts, accuracy = [task.make_net() for _ in range(3)], [len(y) for _, y in parts], {}
        for number in range(1, 4):
            for net, part in zip(nets, parts, strict=True):
                task.fit(net, part, 0.2)
            body = mean([copy.deepcopy(net.body.state_dict()) for net in nets], counts)
            for net in nets:
                net.body.load_state_dict(body)
            accuracy[number] = mean([task.accuracy(*one) for one in zip(nets, parts, strict=True)], counts)
    found = torch.load(apps.saved / "result.pt")
    assert_close(found["body"], body)
    assert_close(found["accuracy"], accuracy)


@pytest.mark.soak
def test_private_updates_are_clipped_and_count_the_same(apps: Apps) -> None:
    apps.run("private")
    with task_of("private") as task:
        updates = [task.update(number) for number in range(4)]
    due = {"w": np.zeros(5), "b": np.zeros(1)}
    norms = [0.1 * np.sqrt(sum((part**2).sum() for part in one.values())) for one in updates]
    factors = [min(1.0, 0.5 / norm) for norm in norms]
    assert min(factors) < 1 == max(factors), "some are clipped"
    for _ in range(2):
        for name in due:
            due[name] = due[name] + mean(
                [0.1 * one[name] * by for one, by in zip(updates, factors, strict=True)], [1] * 4
            )
    found = np.load(apps.saved / "model.npz")
    np.testing.assert_allclose(found["w"], due["w"], rtol=1e-6)
    np.testing.assert_allclose(found["b"], due["b"], rtol=1e-6)


@pytest.mark.soak
def test_low_rank_adapters_of_a_transformer_travel_alone(apps: Apps) -> None:
    session = apps.run("lora")
    settings = {"vocabulary": 20, "width": 16, "heads": 2, "layers": 1, "rank": 2, "seed": 3}
    with task_of("lora") as task:
        model = task.Transformer(**settings)
        state, losses = {name: one.clone() for name, one in task.adapters(model).items()}, []
        texts = [task.load_text(number, 20) for number in range(3)]
        for _ in range(2):
            parts, told = [], []
            for text in texts:
                model.load_state_dict(state, strict=False)
                told.append(task.fit(model, text, 0.5))
                parts.append({name: one.clone() for name, one in task.adapters(model).items()})
            state = mean(parts, [len(text) for text in texts])
            losses.append(mean(told, [len(text) for text in texts]))
    found = torch.load(apps.saved / "result.pt")
    assert_close(found["adapters"], state)
    assert_close(found["losses"], losses)
    assert all("lora_" in name for name in apps.federation.model(f"{session.session_id}.2"))


@pytest.mark.soak
@pytest.mark.parametrize("way", ["bagging", "cyclic"])
def test_xgboost_trees_are_those_of_the_library(apps: Apps, way: str) -> None:
    xgboost = pytest.importorskip("xgboost")
    apps.run("xgboost_trees", f"way={way}")
    booster = xgboost.Booster()
    booster.load_model(bytearray((apps.saved / "booster.json").read_bytes()))
    with task_of("xgboost_trees") as task:
        parts, raw = [task.load_data(number, 3) for number in range(3)], b""
        if way == "cyclic":
            for part in parts:
                raw = task.grown(raw, part, False)
            due = xgboost.Booster()
            due.load_model(bytearray(raw))
            assert booster.num_boosted_rounds() == 3
            np.testing.assert_array_equal(booster.predict(parts[0]), due.predict(parts[0]))
        else:
            assert len(booster.get_dump()) == 9
            first = [xgboost.Booster(model_file=bytearray(task.grown(b"", part, True))) for part in parts]
            assert booster.get_dump()[:3] == [one.get_dump()[0] for one in first]


# ---- the same bits everywhere

# By app, what its configuration is changed to.
KINDS: dict[str, tuple[str, ...]] = {
    "quickstart": (),
    "advanced": (),
    "custom_mods": (),
    "analytics": (),
    "phases": (),
    "own_strategy": (),
    "vertical": (),
    "scikit_logistic": (),
    "personalised": (),
    "private": ("noise-multiplier=0.7",),
    "lora": (),
    "xgboost_trees": (),
}


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", KINDS)
def test_an_app_gives_the_same_bits_on_all_executors(apps: Apps, name: str) -> None:
    if name == "xgboost_trees":
        pytest.importorskip("xgboost")
    found = []
    for executor, workers in (("process", 4), ("forkserver", 1), ("resident", 2)):
        session = apps.run(name, *KINDS[name], executor=executor, workers=workers)
        found.append(apps.outcome(session))
    assert found[0] == found[1] == found[2]
    assert found[0][2], "it saves files"


@pytest.mark.soak
@pytest.mark.parametrize(
    ("name", "executor", "share"),
    [
        ("quickstart", "process", 0.15),  # the others would take minutes: each task imports all anew
        *((name, *how) for name in KINDS for how in (("forkserver", 0.4), ("resident", 0.65), ("forkserver", 0.9))),
    ],
)
def test_an_app_that_is_killed_goes_on_to_the_same_bits(apps: Apps, name: str, executor: str, share: float) -> None:
    """``share``: of the events of the session, those after which it is killed."""
    if name == "xgboost_trees":
        pytest.importorskip("xgboost")
    whole = apps.outcome(apps.run(name, *KINDS[name]))
    kill_at = 1 + int(share * (len(apps.federation.events) - 1))
    killed = apps.run_killed(apps.config(name, *KINDS[name], executor=executor), kill_at)
    assert apps.outcome(killed) == whole


def test_files_of_a_server_app_are_kept_before_its_session_counts_as_ended(apps: Apps) -> None:
    whole = apps.outcome(apps.run("analytics", *KINDS["analytics"]))
    last = max(n for n, one in enumerate(apps.federation.events, 1) if isinstance(one, RoundFinished))
    killed = apps.run_killed(apps.config("analytics", *KINDS["analytics"]), last)
    assert apps.outcome(killed) == whole
    assert whole[2], "it saves a file"


WHO = """\
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

@app.query()
def query(msg, context):
    return Message(RecordDict({"node": ConfigRecord(context.node_config)}), reply_to=msg)
"""
ASKS = """\
import json
from flwr.app import Message, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()

@app.main()
def main(grid, context):
    replies = grid.send_and_receive([Message(RecordDict(), node.node_id, "query") for node in grid.get_nodes()])
    with open("nodes.json", "w") as file:
        json.dump([dict(one.content["node"]) for one in replies], file)
"""
ENTITIES = """\
- {id: north, region: "cold --x=1"}
- {id: b, parent: north, rate: 0.5}
- {id: a, parent: north, gpu: true, num-partitions: 9}
"""


def test_attributes_of_entities_are_in_the_configuration_of_their_node(apps: Apps) -> None:
    app = make_app(apps.folder / "Apps ü" / "who", client=WHO)
    (app / "quick/server_app.py").write_text(ASKS)
    (app / "who is there.yaml").write_text(ENTITIES)
    apps.run("who", f"run.clients.entities={app / 'who is there.yaml'}")
    b, a = json.loads((apps.saved / "nodes.json").read_text())
    assert b == {"region": "cold --x=1", "rate": 0.5, "partition-id": 0, "num-partitions": 2}
    assert a == {"region": "cold --x=1", "gpu": True, "partition-id": 1, "num-partitions": 2}


OLDER_CLIENT = """\
import numpy as np
from flwr.client import ClientApp, NumPyClient

class Client(NumPyClient):
    def get_parameters(self, config):
        return [np.ones(3)]

    def fit(self, parameters, config):
        return [parameters[0] + config["server_round"]], 10, {}

    def evaluate(self, parameters, config):
        return float(parameters[0][0]), 10, {}

app = ClientApp(client_fn=lambda context: Client().to_client())
"""
OLDER_SERVER = """\
from flwr.server import ServerApp, ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg

def server_fn(context):
    return ServerAppComponents(strategy=FedAvg(), config=ServerConfig(num_rounds=2))

app = ServerApp(server_fn=server_fn)
"""


def test_rounds_of_the_older_form_are_those_of_the_session(apps: Apps) -> None:
    app = make_app(apps.folder / "Apps ü" / "older", client=OLDER_CLIENT)
    (app / "quick/server_app.py").write_text(OLDER_SERVER)
    session = apps.run("older", "run.clients.count=2")
    rounds = apps.federation.store.list_rounds(session.session_id)
    assert [(row.round_number, row.num_ok, row.metrics["loss"]) for row in rounds] == [(1, 5, 2.0), (2, 4, 4.0)]


CHOOSES = """\
from flwr.common import FitIns
from flwr.server import ServerApp, ServerAppComponents, ServerConfig
from flwr.server.client_manager import ClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.criterion import Criterion
from flwr.server.strategy import FedAvg

class Odd(Criterion):
    def select(self, client: ClientProxy) -> bool:
        return int(client.cid) % 2 == 1

class Chooses(FedAvg):
    def configure_fit(self, server_round, parameters, client_manager: ClientManager):
        clients = client_manager.sample(num_clients=2, min_num_clients=2, criterion=Odd())
        return [(client, FitIns(parameters, {"server_round": 10 * int(client.cid)})) for client in clients]

    def aggregate_fit(self, server_round, results, failures):
        with open("who.txt", "a") as file:
            file.write(" ".join(client.cid for client, _ in results) + "|")
        return super().aggregate_fit(server_round, results, failures)

def server_fn(context):
    return ServerAppComponents(strategy=Chooses(fraction_evaluate=0.0), config=ServerConfig(num_rounds=2))

app = ServerApp(server_fn=server_fn)
"""


def test_a_strategy_of_the_older_form_chooses_clients_of_the_session(apps: Apps) -> None:
    app = make_app(apps.folder / "Apps ü" / "chooses", client=OLDER_CLIENT)
    (app / "quick/server_app.py").write_text(CHOOSES)
    session = apps.run("chooses", "run.clients.count=4")
    assert (apps.saved / "who.txt").read_text() == "1 3|1 3|"
    model = apps.federation.model(f"{session.session_id}.2")
    assert model["0"].tolist() == [41.0] * 3  # 1 + two times the mean of 10 and 30


NEEDS_TOOLZ = """\
import sys
import toolz
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

@app.train()
def train(msg, context):
    add = toolz.curry(lambda n, w: w + n)
    arrays = ArrayRecord([add(1, msg.content["arrays"].to_numpy_ndarrays()[0])])
    with open("prefix.txt", "w") as file:
        file.write(sys.prefix)
    return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})}), reply_to=msg)
"""
ADDS_UP = """\
import importlib.util
import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()

@app.main()
def main(grid, context):
    assert importlib.util.find_spec("toolz") is None, "the server runs in the Python that runs fedpkg"
    result = FedAvg(fraction_evaluate=0.0).start(grid, ArrayRecord([np.zeros(3)]), num_rounds=2)
    np.save("final.npy", result.arrays.to_numpy_ndarrays()[0])
"""


@pytest.mark.soak
def test_clients_run_in_an_environment_with_what_the_app_requires(
    apps: Apps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_spec("toolz") is not None:
        pytest.skip("toolz is installed here")
    wheel = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(tmp_path / "wheels"), "toolz"]
    if subprocess.run(wheel, capture_output=True, check=False).returncode != 0:
        pytest.skip("no package index can be reached")
    monkeypatch.setenv("FEDPKG_ENVIRONMENTS", str(tmp_path / "Umgebungen ü"))
    text = PYPROJECT.replace('"flwr-datasets[vision]>=0.5", "numpy"', '"numpy", "toolz>=0.12"')
    app = make_app(apps.folder / "Apps ü" / "needs", text, NEEDS_TOOLZ)
    (app / "quick/server_app.py").write_text(ADDS_UP)
    session = apps.run("needs", "run.python_env=auto", "run.clients.count=2")
    assert np.load(apps.saved / "final.npy").tolist() == [2.0] * 3
    [environment] = [path for path in (tmp_path / "Umgebungen ü").iterdir() if path.is_dir()]
    states = apps.federation.home.session_folder(session.session_id).rglob("prefix.txt")
    assert {path.read_text() for path in states} == {str(environment)}
