"""The rounds of a strategy: what is called in which order, what it may return, and what a grid is told."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fedpkg.apps
from fedpkg.apps import Message, MessageType
from fedpkg.apps.errors import TooFewNodes
from fedpkg.apps.strategy import FedAvg, FedProx, Result, Strategy
from fedpkg.records import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from tests.unit.apps.grids import MemoryGrid, content, floats, plain


def trained(node: int, message: Message) -> RecordDict:
    """Training adds the number of the node; evaluation reports the first element."""
    weights = message.content["arrays"]["w"].numpy()
    if message.metadata.message_type == MessageType.TRAIN:
        return content({"w": weights + node}, n=node, loss=1.0 / node)
    return content(None, n=1, first=float(weights[0]))


def test_a_round_trains_aggregates_evaluates_on_nodes_and_then_on_the_server() -> None:
    calls: list[Any] = []

    class Recording(FedAvg):
        def configure_train(self, server_round: int, *given: Any) -> Any:
            calls.append(("configure_train", server_round))
            return super().configure_train(server_round, *given)

        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            calls.append(("aggregate_train", server_round))
            return super().aggregate_train(server_round, replies)

        def configure_evaluate(self, server_round: int, *given: Any) -> Any:
            calls.append(("configure_evaluate", server_round))
            return super().configure_evaluate(server_round, *given)

        def aggregate_evaluate(self, server_round: int, replies: Any) -> Any:
            calls.append(("aggregate_evaluate", server_round))
            return super().aggregate_evaluate(server_round, replies)

    def evaluated(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        calls.append(("evaluate_fn", server_round))
        return MetricRecord({"first": float(arrays["w"].numpy()[0])})

    grid = MemoryGrid(2, trained)
    result = Recording().start(grid, ArrayRecord({"w": floats(0, 0)}), num_rounds=2, evaluate_fn=evaluated)
    a_round = ("configure_train", "aggregate_train", "configure_evaluate", "aggregate_evaluate", "evaluate_fn")
    assert calls == [("evaluate_fn", 0), *((name, number) for number in (1, 2) for name in a_round)]
    # Each round adds (1 * 1 + 2 * 2) / 3.
    assert plain(result.arrays)["w"] == pytest.approx([10 / 3, 10 / 3])
    assert result.train_metrics_clientapp[1] == {"loss": pytest.approx((1 * 1 + 2 * 0.5) / 3)}
    assert result.evaluate_metrics_clientapp[2] == {"first": pytest.approx(10 / 3)}
    assert list(result.evaluate_metrics_serverapp) == [0, 1, 2]
    assert [one["metrics"] for one in grid.rounds] == [
        {"server_first": pytest.approx(5 / 3)},
        {"server_first": pytest.approx(10 / 3)},
    ]
    assert grid.rounds[-1]["arrays"] is result.arrays
    assert "round 2: first 3.333" in repr(result)


def test_messages_of_a_phase_share_their_content_and_the_callers_config_stays_as_it_is() -> None:
    grid = MemoryGrid(3, trained)
    config = ConfigRecord({"lr": 0.1})
    initial = ArrayRecord({"w": floats(0)})
    FedProx(proximal_mu=0.5).start(grid, initial, num_rounds=2, train_config=config)
    assert config == {"lr": 0.1}
    train = grid.sent[0]
    assert [message.metadata.dst_node_id for message in train] == [1, 2, 3]
    assert all(message.content is train[0].content for message in train)
    assert train[0].content["config"] == {"lr": 0.1, "proximal-mu": 0.5, "server-round": 1}
    assert train[0].content["arrays"] is initial
    assert grid.sent[3][0].content["config"] == {"server-round": 2}


def test_records_of_messages_have_the_names_that_are_asked_for() -> None:
    def answer(node: int, message: Message) -> RecordDict:
        assert list(message.content) == ["model", "settings"]
        return RecordDict(
            {
                "aux": ArrayRecord({"w": floats(9)}),
                "model": ArrayRecord({"w": floats(node)}),
                "m": MetricRecord({"rows": 4 - node}),
            }
        )

    strategy = FedAvg(arrayrecord_key="model", configrecord_key="settings", weighted_by_key="rows", fraction_evaluate=0)
    result = strategy.start(MemoryGrid(3, answer), ArrayRecord({"w": floats(0)}), num_rounds=1)
    assert plain(result.arrays)["w"] == pytest.approx([(3 * 1 + 2 * 2 + 1 * 3) / 6])


@pytest.mark.parametrize(
    ("given", "num_nodes", "expected"),
    [
        ({"fraction_train": 0.3}, 10, 3),
        ({"fraction_train": 0.29}, 100, 29),  # in binary, 0.29 * 100 is below 29
        ({"fraction_train": 0.1, "min_train_nodes": 4}, 10, 4),
        ({"fraction_train": 0.5}, 3, 2),
        ({}, 5, 5),
    ],
)
def test_a_share_of_the_nodes_trains(given: dict[str, Any], num_nodes: int, expected: int) -> None:
    grid = MemoryGrid(num_nodes, trained)
    FedAvg(fraction_evaluate=0, **given).start(grid, ArrayRecord({"w": floats(0)}), num_rounds=1)
    assert len(grid.sent[0]) == expected


def test_the_sample_follows_from_the_seed_of_random_and_changes_by_round() -> None:
    def sampled(seed: int) -> list[list[int]]:
        random.seed(seed)
        grid = MemoryGrid(20, trained)
        FedAvg(0.3, fraction_evaluate=0).start(grid, ArrayRecord({"w": floats(0)}), num_rounds=3)
        return [[message.metadata.dst_node_id for message in sent] for sent in grid.sent[::2]]

    first = sampled(1)
    assert sampled(1) == first != sampled(2)
    assert len({tuple(nodes) for nodes in first}) == 3
    assert all(nodes == sorted(nodes) for nodes in first)


@pytest.mark.parametrize(
    ("given", "needed"), [({}, 2), ({"min_available_nodes": 7}, 7), ({"min_train_nodes": 3, "fraction_train": 0.1}, 3)]
)
def test_too_few_nodes_are_an_error_that_says_what_to_write(given: dict[str, Any], needed: int) -> None:
    with pytest.raises(TooFewNodes, match=rf"there are 1 nodes, and {needed} are needed.*--nodes {needed}\b"):
        FedAvg(**given).start(MemoryGrid(1, trained), ArrayRecord({"w": floats(0)}))


def test_a_fraction_of_zero_asks_no_nodes() -> None:
    grid = MemoryGrid(1, trained)
    initial = ArrayRecord({"w": floats(0)})
    result = FedAvg(fraction_train=0, fraction_evaluate=0).start(grid, initial, num_rounds=2)
    assert result.arrays is initial
    assert grid.sent == [[], [], [], []]
    assert result.train_metrics_clientapp == result.evaluate_metrics_clientapp == {}


def test_training_ends_when_should_stop_says_so() -> None:
    class Early(FedAvg):
        def should_stop(self, server_round: int, result: Result) -> bool:
            return result.evaluate_metrics_clientapp[server_round]["first"] > 3

    grid = MemoryGrid(2, trained)
    result = Early().start(grid, ArrayRecord({"w": floats(0)}), num_rounds=50)
    assert len(result.evaluate_metrics_clientapp) == len(grid.rounds) == 2


def test_a_subclass_changes_what_is_sent_and_what_comes_of_it() -> None:
    class Decaying(FedAvg):
        def configure_train(self, server_round: int, arrays: Any, config: ConfigRecord, grid: Any) -> Any:
            config["lr"] = 0.5**server_round
            return super().configure_train(server_round, arrays, config, grid)

        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            arrays, metrics = super().aggregate_train(server_round, replies)
            if arrays is not None:
                arrays["w"] = type(arrays["w"])(arrays["w"].numpy() * 2)
                metrics["round"] = server_round
            return arrays, metrics

    grid = MemoryGrid(2, trained)
    given = ConfigRecord({"lr": 1.0})
    result = Decaying().start(grid, ArrayRecord({"w": floats(0)}), num_rounds=2, train_config=given)
    assert given == {"lr": 1.0}
    assert grid.sent[2][0].content["config"]["lr"] == 0.25
    assert plain(result.arrays)["w"] == pytest.approx([(2 * 5 / 3 + 5 / 3) * 2])
    assert result.train_metrics_clientapp[2]["round"] == 2


def test_a_strategy_of_the_base_alone() -> None:
    class Largest(Strategy):
        def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Any:
            return (Message(RecordDict({"arrays": arrays}), node, "train") for node in grid.get_node_ids())

        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            best = max(replies, key=lambda reply: reply.metadata.src_node_id)
            return best.content["arrays"], MetricRecord({"node": best.metadata.src_node_id})

        def configure_evaluate(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Any:
            return []

        def aggregate_evaluate(self, server_round: int, replies: Any) -> None:
            return None

        def summary(self) -> None: ...

    grid = MemoryGrid(3, trained)
    result = Largest().start(grid, ArrayRecord({"w": floats(0)}), num_rounds=2)
    assert plain(result.arrays)["w"] == [6]
    assert grid.rounds[0]["metrics"] == {"train_node": 3}


def test_replies_are_put_into_the_order_of_the_messages() -> None:
    class Backwards(MemoryGrid):
        def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> list[Message]:
            return super().send_and_receive(messages, timeout=timeout)[::-1]

    def run(kind: type[MemoryGrid]) -> Any:
        def answer(node: int, message: Message) -> RecordDict:
            return content({"w": floats(*(0.1 * node + 1e-3 * i for i in range(50)))}, n=node)

        strategy = FedAvg(fraction_evaluate=0)
        result = strategy.start(kind(20, answer), ArrayRecord({"w": floats(*[0] * 50)}), num_rounds=1)
        return plain(result.arrays)["w"].tobytes()

    assert run(MemoryGrid) == run(Backwards)


@pytest.mark.parametrize(
    ("returned", "said"),
    [(None, r"aggregate_train returned NoneType; it must return \(arrays, metrics\)"), (({}, None), "is a dict")],
)
def test_a_wrong_result_is_an_error_that_names_the_method(returned: Any, said: str) -> None:
    class Wrong(FedAvg):
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            return returned

    with pytest.raises(TypeError, match=said):
        Wrong().start(MemoryGrid(2, trained), ArrayRecord({"w": floats(0)}))


def test_initial_arrays_are_a_record() -> None:
    with pytest.raises(TypeError, match=r"initial_arrays is a dict; write ArrayRecord\(model"):
        FedAvg().start(MemoryGrid(2, trained), {"w": floats(0)})  # type: ignore[arg-type]


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"fraction_train is 1.5"):
        FedAvg(fraction_train=1.5)


def test_names_are_listed_and_constructed_without_pytorch() -> None:
    program = (
        "import sys; import fedpkg.apps.strategy as s; [getattr(s, n) for n in s.__all__]; s.FedAdam(); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_name_that_apps_import_exists() -> None:
    program = (
        "import importlib, flwr\n"
        "for module, names in flwr.MODULES.items():\n"
        "    for name in names:\n"
        "        assert getattr(importlib.import_module(module), name) is not None, (module, name)\n"
        "from flwr.serverapp.strategy.fedavg import FedAvg\n"
        "from flwr.serverapp.strategy.fedopt import FedOpt\n"
        "from flwr.server.strategy.strategy import Strategy\n"
        "from flwr.app.message import ArrayRecord, Message, RecordDict\n"
        "from flwr.app.user_config import UserConfig\n"
        "from flwr.common import Array, array_from_numpy, log, logger\n"
        "assert logger.log is log and array_from_numpy is Array\n"
    )
    runtime = Path(fedpkg.apps.__file__).parents[1] / "runtime"
    paths = f"{runtime / 'compat'}:{runtime / 'path'}:{Path(fedpkg.apps.__file__).parents[2]}"
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, "PYTHONPATH": paths})
