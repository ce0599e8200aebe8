"""Strategies of the older form, with clients whose parameters are lists of NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedpkg.apps import ClientApp, Context, Error, Message, NumPyClient
from fedpkg.apps.errors import AppExitException
from fedpkg.apps.server_app import ServerApp, ServerAppComponents, ServerConfig
from fedpkg.apps.strategy import older
from fedpkg.apps.typing import Parameters, ndarrays_to_parameters, parameters_to_ndarrays
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
        return [parameters[0] + np.float32(self.node), parameters[1]], self.node, {"loss": 1.0 / self.node}

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


def test_methods_that_need_a_client_manager_are_refused() -> None:
    with pytest.raises(TypeError, match=r"Own.configure_fit cannot be used.* override its configure_train"):

        class Own(older.FedAvg):
            def configure_fit(self, server_round: int, parameters: Any, client_manager: Any) -> Any: ...

    class Whole(older.Strategy):
        pass

    with pytest.raises(AppExitException, match=r"Whole derives from the Strategy of the older form"):
        Whole().run_components(None, num_rounds=1)
