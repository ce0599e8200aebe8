"""Boosters of nodes are joined, or passed on from node to node."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from fedpkg.apps import Error, Message
from fedpkg.apps.strategy import FedXgbBagging, FedXgbCyclic
from fedpkg.records import ArrayRecord, RecordDict
from tests.unit.apps.grids import MemoryGrid, content

EMPTY = ArrayRecord([np.frombuffer(b"", np.uint8)])


def booster(*leaves: float, classes: int = 0, **changes: Any) -> dict[str, Any]:
    """A booster in XGBoost's form, with a tree of one leaf for each number."""
    trees = [{"id": place, "base_weights": [leaf]} for place, leaf in enumerate(leaves)]
    step = max(classes, 1)
    model = {
        "gbtree_model_param": {"num_parallel_tree": "1", "num_trees": str(len(trees))},
        "iteration_indptr": list(range(0, len(trees) + 1, step)),
        "tree_info": [place % step for place in range(len(trees))],
        "trees": trees,
    }
    learner = {
        "gradient_booster": {"model": model, "name": changes.get("kind", "gbtree")},
        "learner_model_param": {"num_feature": str(changes.get("features", 4)), "num_class": str(classes)},
        "objective": {"name": changes.get("objective", "binary:logistic")},
    }
    return {"learner": learner, "version": [3, 0, 0]}


def raw(one: Any) -> RecordDict:
    data = one if isinstance(one, bytes) else json.dumps(one).encode()
    return content({"0": np.frombuffer(data, np.uint8)}, n=1, auc=0.5)


def loaded(arrays: ArrayRecord) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(arrays["0"].numpy().tobytes())
    return found


def model_of(arrays: ArrayRecord) -> dict[str, Any]:
    found: dict[str, Any] = loaded(arrays)["learner"]["gradient_booster"]["model"]
    return found


def test_new_trees_are_appended_in_the_order_of_the_messages() -> None:
    def answer(node: int, message: Message) -> RecordDict:
        number = message.content["config"]["server-round"]
        return raw(booster(node + 10 * number, node + 10 * number + 0.5))

    result = FedXgbBagging(fraction_evaluate=0).start(MemoryGrid(3, answer), EMPTY, num_rounds=2)
    model = model_of(result.arrays)
    assert [tree["base_weights"][0] for tree in model["trees"]] == [
        *(11, 11.5, 12, 12.5, 13, 13.5),
        *(21, 21.5, 22, 22.5, 23, 23.5),
    ]
    assert [tree["id"] for tree in model["trees"]] == list(range(12))
    assert model["gbtree_model_param"]["num_trees"] == "12"
    assert model["iteration_indptr"] == list(range(13))
    assert result.train_metrics_clientapp[2] == {"auc": 0.5}


def test_trees_keep_their_class() -> None:
    grid = MemoryGrid(2, lambda *_: raw(booster(1, 2, 3, classes=3)))
    model = model_of(FedXgbBagging(fraction_evaluate=0).start(grid, EMPTY, num_rounds=1).arrays)
    assert model["tree_info"] == [0, 1, 2, 0, 1, 2]
    assert model["iteration_indptr"] == [0, 3, 6]


BAD = {
    "error 2": Error(2, "no"),
    "is not one in JSON": raw(b"\x01binary"),
    "KeyError": raw({"learner": {}}),
    "of the kind 'gblinear'": raw(booster(1, kind="gblinear")),
    "has num_feature 5, and that of the others has 4": raw(booster(1, features=5)),
    "has objective reg:squarederror": raw(booster(1, objective="reg:squarederror")),
    "num_class 3": raw(booster(1, 2, 3, classes=3)),
    "lists of trees have different lengths": raw(
        booster(1)
        | {
            "learner": booster(1)["learner"]
            | {
                "gradient_booster": booster(1, 2)["learner"]["gradient_booster"]
                | {"model": booster(1)["learner"]["gradient_booster"]["model"] | {"tree_info": [0, 0]}}
            }
        }
    ),
    "has 2 arrays": content({"0": np.zeros(1, np.uint8), "1": np.zeros(1, np.uint8)}, n=1),
    "dtype float32": content({"0": np.zeros(1, np.float32)}, n=1),
    "RecursionError": raw(b"[" * 100_000),
}


@pytest.mark.parametrize("reason", BAD)
def test_one_bad_booster_costs_that_reply_only(reason: str, caplog: pytest.LogCaptureFixture) -> None:
    answers = {1: raw(booster(1)), 2: BAD[reason], 3: raw(booster(3))}
    grid = MemoryGrid(3, lambda node, _: answers[node])
    result = FedXgbBagging(fraction_evaluate=0).start(grid, EMPTY, num_rounds=1)
    assert [tree["base_weights"] for tree in model_of(result.arrays)["trees"]] == [[1], [3]]
    assert "node 2 is left out" in caplog.text
    assert reason in caplog.text


def test_one_node_after_the_other_goes_on_with_the_booster() -> None:
    def answer(node: int, message: Message) -> RecordDict:
        if message.metadata.message_type == "evaluate":
            return content(None, n=1, node=node)
        sent = message.content["arrays"]
        before = [] if sent["0"].shape == (0,) else [tree["base_weights"][0] for tree in model_of(sent)["trees"]]
        return raw(booster(*before, node))

    result = FedXgbCyclic().start(MemoryGrid(3, answer), EMPTY, num_rounds=4)
    assert [tree["base_weights"][0] for tree in model_of(result.arrays)["trees"]] == [1, 2, 3, 1]
    assert [record["node"] for record in result.evaluate_metrics_clientapp.values()] == [1, 2, 3, 1]


def test_a_node_that_fails_is_skipped() -> None:
    answers = {1: raw(booster(1)), 2: Error(2, "no"), 3: raw(booster(3))}
    grid = MemoryGrid(3, lambda node, _: answers[node])
    result = FedXgbCyclic(fraction_evaluate=0).start(grid, EMPTY, num_rounds=2)
    assert [tree["base_weights"] for tree in model_of(result.arrays)["trees"]] == [[1]]


def test_a_share_of_the_nodes_makes_no_cycle() -> None:
    with pytest.raises(ValueError, match=r"fraction_train is 0.5; with one node in each round it must be 0 or 1"):
        FedXgbCyclic(fraction_train=0.5)


@pytest.mark.parametrize("objective", ["binary:logistic", "multi:softprob"])
def test_boosters_of_xgboost_itself(objective: str) -> None:
    xgboost = pytest.importorskip("xgboost")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 4))
    labels = (x[:, 0] > 0).astype(int) if objective == "binary:logistic" else np.digitize(x[:, 0], [-0.5, 0.5])
    parts = [xgboost.DMatrix(x[place::2], label=labels[place::2]) for place in range(2)]
    parameters = {"objective": objective, "max_depth": 2} | ({"num_class": 3} if labels.max() > 1 else {})

    def answer(node: int, message: Message) -> RecordDict:
        sent = message.content["arrays"]["0"].numpy().tobytes()
        if not sent:
            one = xgboost.train(parameters, parts[node - 1], num_boost_round=1)
        else:
            one = xgboost.Booster(parameters)
            one.load_model(bytearray(sent))
            one.update(parts[node - 1], one.num_boosted_rounds())
            one = one[one.num_boosted_rounds() - 1 : one.num_boosted_rounds()]
        return content({"0": np.frombuffer(one.save_raw("json"), np.uint8)}, n=1)

    result = FedXgbBagging(fraction_evaluate=0).start(MemoryGrid(2, answer), EMPTY, num_rounds=5)
    whole = xgboost.Booster(parameters)
    whole.load_model(bytearray(result.arrays["0"].numpy().tobytes()))
    assert whole.num_boosted_rounds() == 10
    found = whole.predict(xgboost.DMatrix(x))
    accuracy = ((found > 0.5) if found.ndim == 1 else found.argmax(1)) == labels
    assert accuracy.mean() > 0.95
