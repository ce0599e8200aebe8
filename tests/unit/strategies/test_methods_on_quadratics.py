"""Methods whose step is more than an average, against what is known of them on quadratics, in float64."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pytest
from cohorts import Answers
from quadratics import Federation, Quadratic, Vector, mean, vector, weights

from fedpkg.errors import AggregationError, ConfigError
from fedpkg.strategies.base import Reply, Request, State
from fedpkg.strategies.registry import make_strategy

SIZE = 5


def clients(number: int = 4, seed: int = 0) -> dict[str, Quadratic]:
    rng = np.random.default_rng(seed)
    found = {}
    for k in range(number):
        root = rng.standard_normal((SIZE, SIZE))
        found[f"client-{k}"] = Quadratic(np.eye(SIZE) + 0.2 * root @ root.T, rng.standard_normal(SIZE))
    return found


def sets_of(request: Request) -> Mapping[str, Vector]:
    assert isinstance(request.payload, dict)
    return {name: vector(tensors) for name, tensors in request.payload.items()}


def rounds(federation: Federation, section: dict[str, object], number: int, start: Vector | None = None) -> State:
    strategy = make_strategy(section)  # type: ignore[arg-type]
    state = strategy.init(weights(np.zeros(SIZE) if start is None else start))
    for k in range(number):
        state = federation.step(strategy, state, k)  # type: ignore[arg-type]
    return state


def test_scaffold_is_its_closed_form() -> None:
    """K steps on a quadratic lead to y* + (I - eta A)^K (x - y*), where y* solves A y = b + c_i - c."""
    losses, steps, eta, rate = clients(), 7, 0.1, 0.5
    kept = {name: np.zeros(SIZE) for name in losses}

    def train(name: str, request: Request) -> Mapping[str, Vector]:
        sets, loss = sets_of(request), losses[name]
        y = sets["x"]
        for _ in range(steps):
            y = y - eta * (loss.gradient(y) - kept[name] + sets["c"])
        after = kept[name] - sets["c"] + (sets["x"] - y) / (steps * eta)
        dc, kept[name] = after - kept[name], after
        return {"x": y, "dc": dc}

    federation = Federation({name: {"": loss} for name, loss in losses.items()}, train=train)
    state = rounds(federation, {"name": "scaffold", "learning_rate": rate}, 3)

    x, c, own = np.zeros(SIZE), np.zeros(SIZE), {name: np.zeros(SIZE) for name in losses}
    for _ in range(3):
        ends = {}
        for name, loss in losses.items():
            middle = np.linalg.solve(loss.a, loss.b + own[name] - c)
            power = np.linalg.matrix_power(np.eye(SIZE) - eta * loss.a, steps)
            ends[name] = middle + power @ (x - middle)
        after = {name: own[name] - c + (x - ends[name]) / (steps * eta) for name in losses}
        c = c + np.mean([after[name] - own[name] for name in losses], axis=0)
        own, x = after, x + rate * (np.mean(list(ends.values()), axis=0) - x)
    np.testing.assert_allclose(vector(state["model"]), x, rtol=1e-12)
    np.testing.assert_allclose(vector(state["c"]), c, rtol=1e-12)
    kept.update({name: np.zeros(SIZE) for name in losses})
    end = rounds(federation, {"name": "scaffold"}, 150)
    np.testing.assert_allclose(vector(end["model"]), mean(list(losses.values())).solution, rtol=1e-6)


def test_feddyn_is_its_closed_form_and_arrives_where_the_mean_does_not() -> None:
    losses, alpha = clients(), 0.3
    kept = {name: np.zeros(SIZE) for name in losses}

    def train(name: str, request: Request) -> Mapping[str, Vector]:
        assert request.parameters == {"alpha": alpha}
        x, loss = vector(request.payload), losses[name]  # type: ignore[arg-type]
        y = np.linalg.solve(loss.a + alpha * np.eye(SIZE), loss.b + kept[name] + alpha * x)
        kept[name] = kept[name] - alpha * (y - x)
        return {"": y}

    federation = Federation({name: {"": loss} for name, loss in losses.items()}, train=train)
    state = rounds(federation, {"name": "feddyn", "alpha": alpha}, 1)
    inverses = {name: np.linalg.inv(loss.a + alpha * np.eye(SIZE)) for name, loss in losses.items()}
    ends = np.mean([inverses[name] @ loss.b for name, loss in losses.items()], axis=0)
    np.testing.assert_allclose(vector(state["h"]), -alpha * ends, rtol=1e-12)
    np.testing.assert_allclose(vector(state["model"]), 2 * ends, rtol=1e-12)
    kept.update({name: np.zeros(SIZE) for name in losses})
    end = rounds(federation, {"name": "feddyn", "alpha": alpha}, 300)
    solution = mean(list(losses.values())).solution
    np.testing.assert_allclose(vector(end["model"]), solution, rtol=1e-8)
    assert np.linalg.norm(np.mean([loss.solution for loss in losses.values()], axis=0) - solution) > 1e-2


@pytest.mark.parametrize("name", ["mime", "mimelite"])
def test_mime_steps_with_the_servers_momentum(name: str) -> None:
    losses, eta, beta = clients(), 0.05, 0.8

    def train(client: str, request: Request) -> Mapping[str, Vector]:
        sets, loss = sets_of(request), losses[client]
        assert set(sets) == ({"x", "m", "c"} if name == "mime" else {"x", "m"})
        assert request.parameters == {"momentum": beta}
        y = sets["x"]
        for _ in range(4):
            g = loss.gradient(y)
            if name == "mime":
                g = g - loss.gradient(sets["x"]) + sets["c"]
            y = y - eta * ((1 - beta) * g + beta * sets["m"])
        return {"": y}

    federation = Federation({client: {"": loss} for client, loss in losses.items()}, train=train)
    first = rounds(federation, {"name": name, "momentum": beta}, 1)
    whole = mean(list(losses.values()))
    np.testing.assert_allclose(vector(first["m"]), (1 - beta) * whole.gradient(np.zeros(SIZE)), rtol=1e-12)
    end = vector(rounds(federation, {"name": name, "momentum": beta}, 400)["model"])
    distance = np.linalg.norm(end - whole.solution)
    assert distance < 0.05 * np.linalg.norm(whole.solution)


def test_fedexp_extrapolates_by_how_much_clients_disagree() -> None:
    ends = [np.array([4.0, 0, 0, 0, 0]), np.array([0, 3.0, 0, 0, 0])]
    federation = Federation(
        {f"client-{k}": {"": Quadratic(np.eye(SIZE), np.zeros(SIZE))} for k in range(2)},
        train=lambda name, _: {"": ends[int(name[-1])]},
    )
    state = rounds(federation, {"name": "fedexp", "epsilon": 0.0}, 1)
    eta = (16 + 9) / (2 * 2 * (4 + 2.25))
    np.testing.assert_allclose(vector(state["iterate"]), eta * np.mean(ends, axis=0), rtol=1e-12)
    np.testing.assert_allclose(vector(state["model"]), eta / 2 * np.mean(ends, axis=0), rtol=1e-12)
    ends[:] = [np.ones(SIZE), np.ones(SIZE)]
    state = rounds(federation, {"name": "fedexp", "epsilon": 0.0}, 1)
    np.testing.assert_allclose(vector(state["iterate"]), np.ones(SIZE), rtol=1e-12, err_msg="never less than the mean")
    ends[:] = [np.zeros(SIZE), np.zeros(SIZE)]
    assert not vector(rounds(federation, {"name": "fedexp", "epsilon": 0.0}, 1)["model"]).any()


def test_fedexps_models_are_the_means_of_two_iterates_and_its_clients_train_the_iterates() -> None:
    asked = []

    def train(name: str, request: Request) -> Mapping[str, Vector]:
        asked.append(vector(request.payload))  # type: ignore[arg-type]
        return {"": np.eye(SIZE)[len(asked) % SIZE] * len(asked)}

    federation = Federation({"client-0": {"": Quadratic(np.eye(SIZE), np.zeros(SIZE))}}, train=train)
    strategy, models = make_strategy({"name": "fedexp"}), []
    state = strategy.init(weights(np.zeros(SIZE)))
    for number in range(4):
        state = federation.step(strategy, state, number)  # type: ignore[arg-type]
        models.append(vector(state["model"]))
    iterates = [*asked, vector(state["iterate"])]
    np.testing.assert_allclose(models, (np.array(iterates[1:]) + np.array(iterates[:-1])) / 2, rtol=1e-12)
    assert not np.allclose(models[-1], iterates[-1])


def test_fedsgd_takes_the_step_of_gradient_descent() -> None:
    losses = clients()
    federation = Federation({name: {"": loss} for name, loss in losses.items()})
    section = {"name": "fedsgd", "server_optimiser": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.5}}
    state = rounds(federation, section, 3)
    x, m, whole = np.zeros(SIZE), np.zeros(SIZE), mean(list(losses.values()))
    for _ in range(3):
        m = 0.5 * m + whole.gradient(x)
        x = x - 0.1 * m
    np.testing.assert_allclose(vector(state["model"]), x, rtol=1e-10)


def two_kinds() -> dict[str, Quadratic]:
    return {f"client-{k}": Quadratic(np.eye(SIZE), np.full(SIZE, 1.0 if k < 3 else -1.0)) for k in range(5)}


def half_way(losses: Mapping[str, Quadratic], name: str, request: Request) -> Mapping[str, Vector]:
    point = vector(request.payload)  # type: ignore[arg-type]
    return {"": point - 0.5 * losses[name].gradient(point)}


def test_ifca_finds_the_clusters() -> None:
    losses = two_kinds()
    federation = Federation(
        {name: {"": loss} for name, loss in losses.items()}, train=lambda *call: half_way(losses, *call)
    )
    state = rounds(federation, {"name": "ifca", "clusters": 2}, 30, start=np.full(SIZE, 0.01))
    found = sorted(float(vector(model).mean()) for model in state["clusters"])
    np.testing.assert_allclose(found, [-1.0, 1.0], atol=1e-6)
    np.testing.assert_allclose(vector(state["model"]), np.ones(SIZE), atol=1e-6, err_msg="that of most clients")
    groups = [[name for name, its in state["cluster_of"].items() if its == j] for j in range(2)]
    assert sorted(map(len, groups)) == [2, 3]
    with pytest.raises(AggregationError, match=r"no number 'val_loss'.*(\n.*)*set strategy.loss to one of: loss"):
        try:
            rounds(federation, {"name": "ifca", "loss": "val_loss"}, 1)
        except AggregationError as error:
            raise AggregationError(f"{error.message} {error.hint}") from error


def test_what_a_method_asks_of_its_clients_travels_transformed_and_what_of_its_server_does_not() -> None:
    asked: list[Request] = []

    def train(name: str, request: Request) -> Mapping[str, Vector]:
        asked.append(request)
        return {"": vector(request.payload) + 1}  # type: ignore[arg-type]

    made = Federation({name: {"": loss} for name, loss in clients().items()}, {"server": ["client-0"]}, train)
    ways: dict[str, object] = {"transforms": [{"name": "top_k", "share": 0.5}], "download_transforms": ["bfloat16"]}
    rounds(made, {"name": "fltrust", **ways}, 1)
    assert {request.group: (request.transforms is None, request.download is None) for request in asked} == {
        "server": (True, True),
        None: (False, False),
    }
    plain, whole = (rounds(made, {"name": "fedexp", **more}, 2)["model"] for more in ({}, ways))
    assert plain.equal(whole), "the way is not the method's"
    with pytest.raises(ConfigError, match="transforms: delta cannot come after"):
        make_strategy({"name": "fedexp", "transforms": ["zstd", "delta"]})
    with pytest.raises(ConfigError, match="download_transforms: Delta is for updates"):
        make_strategy({"name": "ifca", "download_transforms": ["delta"]})


@dataclass
class Failing(Federation):
    """Some clients do not answer to be trained, some do not say their loss."""

    silent: tuple[str, ...] = ()
    lossless: tuple[str, ...] = ()

    def _answers(self, request: Request) -> Answers:
        whole = super()._answers(request)
        silent = self.silent if request.entry_point == "train" else ()
        answers = Answers(request, [reply for reply in whole if reply.client_id not in silent])
        answers.asked = whole.asked
        answers.missing = tuple(name for name in whole.asked if name in silent)
        return answers

    def _reply(self, request: Request, position: int, name: str) -> Reply:
        reply = super()._reply(request, position, name)
        return replace(reply, metrics={}) if name in self.lossless else reply


def test_a_client_that_fails_ifca_stops_nobody_and_its_cluster_keeps_its_model() -> None:
    losses = two_kinds()
    clients = {name: {"": loss} for name, loss in losses.items()}
    section: dict[str, object] = {"name": "ifca", "clusters": 2}

    def run(**more: tuple[str, ...]) -> State:
        made = Failing(clients, train=lambda *call: half_way(losses, *call), **more)  # type: ignore[arg-type]
        return rounds(made, section, 3, start=np.full(SIZE, 0.01))

    whole = run()
    assert "client-0" not in run(lossless=("client-0",))["cluster_of"]
    few = min(range(2), key=list(whole["cluster_of"].values()).count)
    its = tuple(name for name, j in whole["cluster_of"].items() if j == few)
    without = run(silent=its)
    assert not np.allclose(vector(whole["clusters"][few]), vector(without["clusters"][few]))
    np.testing.assert_allclose(vector(whole["clusters"][1 - few]), vector(without["clusters"][1 - few]))


@pytest.mark.parametrize("name", ["ifca", "fedamp"])
def test_a_round_of_several_requests_without_an_answer_is_no_round(name: str) -> None:
    losses = two_kinds()
    made = Failing({name: {"": loss} for name, loss in losses.items()}, train=lambda *call: half_way(losses, *call))
    made.silent = tuple(losses)
    with pytest.raises(AggregationError, match=r"0 usable updates of 5 clients, 1 are required \(round.required\)"):
        rounds(made, {"name": name}, 1)


def test_fedamp_brings_clients_together_that_are_alike() -> None:
    losses = two_kinds()

    def train(name: str, request: Request) -> Mapping[str, Vector]:
        u, loss, mu = vector(request.payload), losses[name], request.parameters["proximal_mu"]  # type: ignore[arg-type]
        assert isinstance(mu, float)
        return {"": np.linalg.solve(loss.a + mu * np.eye(SIZE), loss.b + mu * u)}

    federation = Federation({name: {"": loss} for name, loss in losses.items()}, train=train)
    state = rounds(federation, {"name": "fedamp", "alpha": 0.2, "sigma": 1.0}, 40)
    for name, model in state["personal"].items():
        np.testing.assert_allclose(vector(model), losses[name].solution, atol=0.05)
    one = rounds(federation, {"name": "fedamp", "alpha": 0.2, "sigma": 1.0}, 1)["personal"]
    federation.train = lambda name, request: {"": vector(request.payload)}  # type: ignore[arg-type]
    strategy = make_strategy({"name": "fedamp", "alpha": 0.2, "sigma": 1.0})
    after = federation.step(strategy, {"model": one["client-0"], "personal": one}, 1)["personal"]  # type: ignore[arg-type]
    w = {name: vector(model) for name, model in one.items()}
    shares = {j: 0.2 * math.exp(-float(np.sum((w["client-0"] - w[j]) ** 2))) for j in w if j != "client-0"}
    u = (1 - sum(shares.values())) * w["client-0"] + sum(share * w[j] for j, share in shares.items())
    np.testing.assert_allclose(vector(after["client-0"]), u, rtol=1e-12)
