"""Strategies of the older form, with clients whose parameters are lists of NumPy arrays."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from fedpkg.apps import ClientApp, Context, Error, Message, NumPyClient
from fedpkg.apps.errors import AppExitException, TooFewNodes
from fedpkg.apps.server_app import ServerApp, ServerAppComponents, ServerConfig
from fedpkg.apps.strategy import older
from fedpkg.apps.strategy.client_manager import ClientProxy, Criterion, SimpleClientManager, register_all
from fedpkg.apps.typing import FitIns, Parameters, ndarrays_to_parameters, parameters_to_ndarrays
from fedpkg.records import RecordDict
from tests.unit.apps.grids import MemoryGrid, floats, plain


class Client(NumPyClient):
    """Adds the number of its node; the parameters of the second array stay as they are."""

    seen: list[dict[str, Any]]

    def __init__(self, node: int, seen: list[dict[str, Any]]) -> None:
        self.node, self.seen = node, seen

    def get_parameters(self, config: dict[str, Any]) -> list[Any]:
        return [floats(0, 0), np.zeros((1, 2))]

    def fit(self, parameters: list[Any], config: dict[str, Any]) -> Any:
        self.seen.append(config)
        if self.node == 9:
            raise RuntimeError("boom")
        return (
            [parameters[0] + np.float32(self.node), parameters[1]],
            self.node,
            {"loss": 1.0 / self.node, "note": f"node {self.node}"},
        )

    def evaluate(self, parameters: list[Any], config: dict[str, Any]) -> Any:
        self.seen.append(config)
        return float(parameters[0][0]), self.node, {"accuracy": 0.1 * self.node, "text": "dropped"}


def grid_of(*nodes: int, **more: Any) -> tuple[MemoryGrid, list[dict[str, Any]]]:
    seen: list[dict[str, Any]] = []

    def answer(node: int, message: Message) -> RecordDict | Error:
        app = ClientApp(client_fn=lambda context: Client(node, seen).to_client())
        try:
            return app(message, Context(1, node, {}, RecordDict(), {})).content
        except Exception as error:
            return Error(2, str(error))

    grid = MemoryGrid(len(nodes), answer)
    grid.nodes = list(nodes)
    return grid, seen


def run(strategy: Any, grid: Any, num_rounds: int = 1) -> None:
    components = ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=num_rounds))
    ServerApp(server_fn=lambda context: components)(grid, Context(1, 0, {}, RecordDict(), {}))


def last(grid: MemoryGrid) -> list[Any]:
    return list(plain(next(one["arrays"] for one in reversed(grid.rounds) if one["arrays"] is not None)).values())


def test_parameters_come_from_a_client_and_are_averaged() -> None:
    grid, _ = grid_of(1, 2)
    run(older.FedAvg(), grid, num_rounds=2)
    assert grid.sent[0][0].metadata.message_type == "query.get_parameters"
    np.testing.assert_allclose(last(grid)[0], [10 / 3, 10 / 3], rtol=1e-6)
    np.testing.assert_array_equal(last(grid)[1], [[0, 0]])


def test_parameters_configs_and_functions_are_used() -> None:
    grid, seen = grid_of(1, 2, 3, 4)
    evaluated = []

    def evaluate_fn(server_round: int, parameters: list[Any], config: dict[str, Any]) -> Any:
        evaluated.append((server_round, float(parameters[0][0]), config))
        return 0.5, {"accuracy": 0.75, "name": "text"}

    def weighted(pairs: list[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
        assert all("num-examples" not in metrics for _, metrics in pairs)
        return {"clients": len(pairs), "examples": sum(number for number, _ in pairs)}

    strategy = older.FedAvg(
        fraction_fit=0.5,
        fraction_evaluate=0.25,
        min_evaluate_clients=1,
        evaluate_fn=evaluate_fn,
        on_fit_config_fn=lambda server_round: {"epochs": 10 * server_round},
        on_evaluate_config_fn=lambda server_round: {"batch": 7},
        initial_parameters=ndarrays_to_parameters([floats(5, 5), np.zeros((1, 2))]),
        fit_metrics_aggregation_fn=weighted,
        evaluate_metrics_aggregation_fn=weighted,
    )
    result = strategy.run_components(grid, num_rounds=2)
    assert [len(sent) for sent in grid.sent] == [2, 1, 2, 1]
    assert [config.get("epochs") for config in seen] == [10, 10, None, 20, 20, None]
    assert seen[2] == {"batch": 7, "server-round": 1, "server_round": 1}
    assert evaluated[0] == (0, 5.0, {})
    assert result.evaluate_metrics_serverapp[2] == {"loss": 0.5, "accuracy": 0.75}
    assert set(result.train_metrics_clientapp[1]) == {"clients", "examples"}
    assert set(result.evaluate_metrics_clientapp[1]) == {"loss", "clients", "examples"}
    assert result.evaluate_metrics_clientapp[1]["loss"] == evaluated[1][1]


def test_without_functions_metrics_are_averaged() -> None:
    grid, _ = grid_of(1, 3)
    result = older.FedAvg().run_components(grid)
    assert result.train_metrics_clientapp[1] == {"loss": pytest.approx((1 * 1 + 3 / 3) / 4)}
    assert result.evaluate_metrics_clientapp[1] == {"loss": 2.5, "accuracy": pytest.approx((0.1 + 3 * 0.3) / 4)}


def test_an_app_may_override_how_results_are_aggregated() -> None:
    kept: list[Any] = []

    class Saving(older.FedAvg):
        def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
            kept.append((server_round, [proxy.cid for proxy, _ in results], [str(one) for one in failures]))
            for _, result in results:
                result.num_examples = 1
            parameters, metrics = super().aggregate_fit(server_round, results, failures)
            assert isinstance(parameters, Parameters)
            kept.append(parameters_to_ndarrays(parameters)[0].tolist())
            return parameters, {**metrics, "results": len(results)}

        def aggregate_evaluate(self, server_round: int, results: Any, failures: Any) -> Any:  # type: ignore[override]
            loss, metrics = super().aggregate_evaluate(server_round, results, failures)
            return loss, {**metrics, "best": max(result.metrics["accuracy"] for _, result in results)}

        def evaluate(self, server_round: int, parameters: Parameters) -> Any:
            return float(parameters_to_ndarrays(parameters)[0][0]), {}

    grid, _ = grid_of(1, 2, 9)
    strategy = Saving(initial_parameters=ndarrays_to_parameters([floats(0, 0), np.zeros((1, 2))]))
    result = strategy.run_components(grid)
    assert kept == [(1, ["1", "2"], ["node 9: boom"]), [1.5, 1.5]]
    assert plain(result.arrays)["0"].tolist() == [1.5, 1.5]
    assert result.train_metrics_clientapp[1] == {"loss": 0.75, "results": 2}
    assert result.evaluate_metrics_clientapp[1]["best"] == pytest.approx(0.9)
    assert result.evaluate_metrics_serverapp == {0: {"loss": 0.0}, 1: {"loss": 1.5}}


def test_a_failure_that_is_not_accepted_keeps_the_parameters(caplog: pytest.LogCaptureFixture) -> None:
    for accepts in (True, False):
        grid, _ = grid_of(1, 2, 9)
        initial = ndarrays_to_parameters([floats(0, 0), np.zeros((1, 2))])
        older.FedAvg(accept_failures=accepts, initial_parameters=initial).run_components(grid)
        assert (grid.rounds[0]["arrays"] is not None) is accepts
    assert "round 1: the arrays stay as they are, as a reply cannot be used" in caplog.text


def test_other_strategies_of_the_older_form() -> None:
    for strategy, due in (
        (older.FedMedian(), 2.0),
        (older.FedTrimmedAvg(beta=0.34), 2.0),
        (older.Krum(num_malicious_clients=0), 2.0),
        (older.Krum(num_malicious_clients=0, num_clients_to_keep=3), 2.0),
        (older.FedAvgM(server_learning_rate=0.5), 7 / 6),
        (older.FedAdam(eta=0.5, beta_1=0.0, beta_2=0.0), 0.5),
        (older.FedAdagrad(eta=0.5), 0.5),
        (older.FedYogi(eta=0.5, beta_1=0.0), 5.0),
    ):
        grid, _ = grid_of(1, 2, 3)
        run(strategy, grid)
        np.testing.assert_allclose(last(grid)[0], [due, due], rtol=0.01, err_msg=type(strategy).__name__)


def test_clients_find_proximal_mu_under_its_older_name() -> None:
    grid, seen = grid_of(1, 2)
    run(older.FedProx(proximal_mu=0.25), grid)
    assert seen[0]["proximal_mu"] == 0.25


def test_a_client_without_parameters_is_an_error_that_says_what_to_write() -> None:
    def answer(node: int, message: Message) -> Any:
        app = ClientApp(client_fn=lambda context: NumPyClient())
        return app(message, Context(1, node, {}, RecordDict(), {})).content

    with pytest.raises(AppExitException, match=r"node \d gave no initial parameters; set initial_parameters of FedAvg"):
        older.FedAvg().run_components(MemoryGrid(2, answer))
    with pytest.raises(AppExitException, match=r"did not give the initial parameters: boom"):
        older.FedAvg().run_components(MemoryGrid(2, lambda *_: Error(2, "boom")))


def initial() -> Parameters:
    return ndarrays_to_parameters([floats(0, 0), np.zeros((1, 2))])


def test_an_app_may_change_what_clients_are_given() -> None:
    class Own(older.FedProx):
        def configure_fit(self, server_round: int, parameters: Parameters, client_manager: Any) -> Any:
            assert sorted(client_manager.all()) == ["1", "2", "3", "4"]
            given = super().configure_fit(server_round, parameters, client_manager)
            given[0][1].config.update(epochs=server_round)
            return given

        def configure_evaluate(self, server_round: int, parameters: Parameters, client_manager: Any) -> Any:
            return None if server_round == 1 else super().configure_evaluate(server_round, parameters, client_manager)

    def sent(kind: type[older.FedProx]) -> tuple[list[list[int]], list[dict[str, Any]]]:
        random.seed(5)
        grid, seen = grid_of(1, 2, 3, 4)
        run(kind(proximal_mu=0.5, fraction_fit=0.5, initial_parameters=initial()), grid, num_rounds=2)
        return [[one.metadata.dst_node_id for one in messages] for messages in grid.sent], seen

    (nodes, seen), (usual, _) = sent(Own), sent(older.FedProx)
    assert nodes[0] == usual[0] and [len(each) for each in nodes] == [2, 0, 2, 4]
    assert [config.get("epochs") for config in seen] == [1, 1, 2, 2, None, None, None, None]
    assert seen[0]["proximal_mu"] == 0.5


class Scratch(older.Strategy):
    """Half of the clients start from other parameters, with another learning rate."""

    def __init__(self) -> None:
        self.came: list[Any] = []

    def initialize_parameters(self, client_manager: Any) -> Parameters | None:
        self.came.append(client_manager.num_available())
        return initial()

    def configure_fit(self, server_round: int, parameters: Parameters, client_manager: Any) -> Any:
        clients = client_manager.sample(num_clients=4, min_num_clients=2)
        slow, fast = {"lr": 0.001}, {"lr": 0.003}
        other = ndarrays_to_parameters([one + 10 for one in parameters_to_ndarrays(parameters)])
        return [
            (client, FitIns(parameters, slow) if place < 2 else FitIns(other, fast))
            for place, client in enumerate(clients)
        ]

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        self.came.append([(proxy.cid, result.num_examples, result.metrics["note"]) for proxy, result in results])
        weighted = [(parameters_to_ndarrays(result.parameters), result.num_examples) for _, result in results]
        return ndarrays_to_parameters(older.aggregate(weighted)), {}

    def configure_evaluate(self, server_round: int, parameters: Parameters, client_manager: Any) -> Any:
        return []

    def aggregate_evaluate(self, server_round: int, results: Any, failures: Any) -> Any:
        raise AssertionError("nothing was evaluated")

    def evaluate(self, server_round: int, parameters: Parameters) -> Any:
        return None


def test_a_strategy_may_be_written_from_scratch(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    grid, seen = grid_of(1, 2, 3, 4)
    strategy = Scratch()
    run(strategy, grid)
    assert strategy.came == [4, [("1", 1, "node 1"), ("2", 2, "node 2"), ("3", 3, "node 3"), ("4", 4, "node 4")]]
    assert [config["lr"] for config in seen] == [0.001, 0.001, 0.003, 0.003]
    assert last(grid)[0].tolist() == [10.0, 10.0]  # (1·1 + 2·2 + 3·13 + 4·14) / 10
    assert len({id(message.content["arrays"]) for message in grid.sent[0]}) == 2
    assert "Scratch" in caplog.text and "FromScratch" not in caplog.text

    with pytest.raises(TypeError, match="aggregate_fit"):

        class Half(older.Strategy):
            def configure_fit(self, server_round: int, parameters: Any, client_manager: Any) -> Any: ...

        Half()  # type: ignore[abstract]


def test_an_app_may_have_its_client_manager() -> None:
    class InTurn(SimpleClientManager):
        turn = 0

        def sample(self, num_clients: int, min_num_clients: int | None = None, criterion: Any = None) -> Any:
            self.turn += 1
            return [list(self.all().values())[self.turn % len(self)]]

    grid, _ = grid_of(1, 2, 3)
    strategy = older.FedAvg(fraction_evaluate=0, initial_parameters=initial())
    config = ServerConfig(num_rounds=4)
    ServerApp(client_manager=InTurn(), strategy=strategy, config=config)(grid, Context(1, 0, {}, RecordDict(), {}))
    assert [[one.metadata.dst_node_id for one in messages] for messages in grid.sent if messages] == [
        [2],
        [3],
        [1],
        [2],
    ]


def test_a_client_manager_draws_those_that_a_criterion_selects(caplog: pytest.LogCaptureFixture) -> None:
    class Even(Criterion):
        def select(self, client: ClientProxy) -> bool:
            return client.node_id % 2 == 0

    manager = register_all(range(1, 6), None)
    manager.unregister(ClientProxy(2))
    assert manager.sample(1, criterion=Even()) == [ClientProxy(4)]
    assert manager.sample(2, criterion=Even()) == []
    assert "no client is drawn: the criterion selects 1, and 2 are needed" in caplog.text
    assert manager.wait_for(4) and not manager.wait_for(5)
    with pytest.raises(TooFewNodes, match="there are 4 nodes, and 5 are needed: run with --nodes 5, or lower min_fit"):
        manager.sample(3, 5)


def test_other_results_of_configure_fit_are_an_error() -> None:
    class Own(older.FedAvg):
        def configure_fit(self, server_round: int, parameters: Parameters, client_manager: Any) -> Any:
            return list(client_manager.all().values())

    grid, _ = grid_of(1, 2)
    with pytest.raises(
        TypeError, match=r"Own.configure_fit returned a list with a ClientProxy; write pairs \(client, F"
    ):
        Own(initial_parameters=initial()).run_components(grid)


def test_a_strategy_has_its_settings_under_the_names_of_the_older_form() -> None:
    def metrics(pairs: Any) -> Any: ...

    strategy = older.FedAvg(fraction_fit=0.25, min_available_clients=7, fit_metrics_aggregation_fn=metrics)
    assert (strategy.fraction_fit, strategy.min_available_clients) == (0.25, 7)
    assert strategy.fit_metrics_aggregation_fn is metrics
    strategy.min_fit_clients = 3
    assert strategy.num_fit_clients(8) == (3, 7) and strategy.num_evaluation_clients(8) == (8, 7)
    assert strategy.min_train_nodes == 3
