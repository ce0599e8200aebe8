"""Trees of combiners, against the closed form of hierarchical averaging on quadratics, in float64."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from quadratics import Federation, Quadratic, Vector, vector, weights

from fedpkg.config_reading import config_of
from fedpkg.errors import ConfigError
from fedpkg.session.configuration import resolved
from fedpkg.strategies.base import Reply, Request, State
from fedpkg.strategies.registry import make_strategy
from fedpkg.strategies.traits import Traits
from fedpkg.strategies.tree import Combiner, TreeStrategy
from fedpkg.topology.building import tree_of
from fedpkg.weights.weights import Weights

SIZE, RATE, STEPS = 4, 0.1, 3


def losses_of(number: int) -> dict[str, Quadratic]:
    rng = np.random.default_rng(number)
    found = {}
    for k in range(number):
        root = rng.standard_normal((SIZE, SIZE))
        found[f"client-{k}"] = Quadratic(np.eye(SIZE) + 0.2 * root @ root.T, rng.standard_normal(SIZE))
    return found


def trained(loss: Quadratic, x: Vector) -> Vector:
    for _ in range(STEPS):
        x = x - RATE * loss.gradient(x)
    return x


def federation_of(losses: Mapping[str, Quadratic], *, broken: tuple[str, ...] = ()) -> Federation:
    def train(name: str, request: Request) -> Mapping[str, Vector]:
        x = trained(losses[name], vector(request.payload))  # type: ignore[arg-type]
        return {"": x * np.nan if name in broken else x}

    return Federation({name: {"": loss} for name, loss in losses.items()}, train=train)


def combiner(path: str, *parts: str | Combiner, rounds: int = 1, **more: object) -> Combiner:
    clients = tuple(part for part in parts if isinstance(part, str))
    children = tuple(part for part in parts if isinstance(part, Combiner))
    strategy = make_strategy({"name": str(more.pop("strategy", "fedavg"))})
    return Combiner(path, strategy, clients, children, rounds, **more)  # type: ignore[arg-type]


def run(root: Combiner, federation: Federation, rounds: int = 1) -> State:
    strategy = TreeStrategy(root)
    state = strategy.init(weights(np.zeros(SIZE)))
    for number in range(rounds):
        state = federation.step(strategy, state, number)
    return state


def closed_form(one: Combiner, losses: Mapping[str, Quadratic], x: Vector) -> Vector:
    """The mean of clients' and combiners' models, again and again, each weighted by the clients that are in it."""
    for _ in range(one.rounds):
        models = [(trained(losses[name], x), 1) for name in one.clients]
        models += [
            (closed_form(child, losses, x), sum(len(c.clients) for c in child.everyone())) for child in one.children
        ]
        x = sum(weight * model for model, weight in models) / sum(weight for _, weight in models)
    return x


c = [f"client-{k}" for k in range(9)]
TREES = {
    "flat": combiner("", *c),
    "two levels": combiner("", combiner("a", *c[:4], rounds=3), combiner("b", *c[4:], rounds=2)),
    "a client beside a combiner": combiner("", c[0], combiner("a", *c[1:], rounds=2)),
    "one child": combiner("", combiner("a", combiner("a/b", *c, rounds=2), rounds=2), rounds=2),
    "one client": combiner("", combiner("a", c[0]), combiner("b", *c[1:])),
    "odd": combiner(
        "",
        c[0],
        combiner("a", c[1], combiner("a/a", c[2], c[3], rounds=2), combiner("a/b", c[4]), rounds=3),
        combiner("b", combiner("b/a", combiner("b/a/a", combiner("b/a/a/a", *c[5:], rounds=2)), rounds=2)),
        rounds=2,
    ),
}


@pytest.mark.parametrize("name", TREES)
def test_a_tree_of_means_is_its_closed_form(name: str) -> None:
    tree, losses = TREES[name], losses_of(9)
    state = run(tree, federation_of(losses), 2)
    expected = closed_form(tree, losses, closed_form(tree, losses, np.zeros(SIZE)))
    np.testing.assert_allclose(vector(state["model"]), expected, rtol=1e-12)


def test_a_chain_of_combiners_changes_no_bit() -> None:
    losses = losses_of(5)
    chain = combiner("/".join("x" * 200), *losses)
    for depth in range(199, -1, -1):
        chain = combiner("/".join("x" * depth), chain)
    deep, flat = (run(tree, federation_of(losses), 2) for tree in (chain, combiner("", *losses)))
    assert np.array_equal(vector(deep["model"]), vector(flat["model"]))


def test_half_precision_is_kept_through_a_chain_and_wider_within_a_combiner() -> None:
    names, losses = ["client-0", "client-1"], losses_of(2)

    def train(name: str, request: Request) -> Mapping[str, Vector]:
        x = vector(request.payload)  # type: ignore[arg-type]
        return {"": (x + np.float16(2**-5 if name == "client-0" else 2**-6)).astype(np.float16)}

    def model_of(root: Combiner, rounds: int) -> Weights:
        strategy, federation = (
            TreeStrategy(root),
            Federation({name: {"": loss} for name, loss in losses.items()}, train=train),
        )
        state = strategy.init(weights(np.ones(SIZE, dtype=np.float16)))
        for number in range(rounds):
            state = federation.step(strategy, state, number)
        model: Weights = state["model"]
        return model

    chain = combiner("a", combiner("a/b", combiner("a/b/c", combiner("a/b/c/d", *names))))
    deep, flat = model_of(combiner("", chain), 3), model_of(combiner("", *names), 3)
    assert deep["x"].dtype == flat["x"].dtype and vector(deep).dtype == np.float16
    assert np.array_equal(vector(deep), vector(flat)) and vector(deep)[0] > 1
    # Float16 numbers above 1 are 2^-10 apart: one server step of 0.01 * 0.0234 is rounded away, and eight are not.
    slow = make_strategy({"name": "fedavgm", "learning_rate": 0.01, "momentum": 0.0})
    once, often = (model_of(combiner("", Combiner("a", slow, tuple(names), rounds=n)), 1) for n in (1, 8))
    assert (vector(once) == 1).all() and (vector(often) > 1).all()


def test_a_combiner_whose_update_is_not_finite_fails_alone_and_is_named() -> None:
    losses = losses_of(6)
    kiruna = combiner("north/kiruna", "client-0", "client-1")
    tree = combiner("", combiner("north", kiruna, combiner("north/lulea", "client-2")), combiner("south", *c[3:6]))
    strategy = TreeStrategy(tree)
    federation = federation_of(losses, broken=("client-1",))
    state = federation.step(strategy, strategy.init(weights(np.zeros(SIZE))), 1)  # type: ignore[arg-type]
    x = np.zeros(SIZE)
    expected = (trained(losses["client-2"], x) + sum(trained(losses[name], x) for name in c[3:6])) / 4
    np.testing.assert_allclose(vector(state["model"]), expected, rtol=1e-12)


class Raising:
    """A strategy of somebody's own that fails from its second step on."""

    traits = Traits()

    def init(self, seed_model: Weights) -> State:
        return {"model": seed_model, "steps": 0}

    def ask(self, state: State, rng: np.random.Generator) -> tuple[State, list[Request]]:
        return state, [Request(payload=state["model"])]

    def tell(self, state: State, replies: Iterator[Reply]) -> State:
        if state["steps"]:
            raise ValueError("expected more")
        return {"model": next(replies).weights, "steps": 1}


def test_a_strategy_that_raises_costs_its_subtree_and_keeps_the_state_before() -> None:
    losses = losses_of(3)
    tree = combiner("", Combiner("a", Raising(), ("client-0",)), combiner("b", "client-1", "client-2"))
    strategy, federation = TreeStrategy(tree), federation_of(losses)
    state = federation.step(strategy, strategy.init(weights(np.zeros(SIZE))), 1)  # type: ignore[arg-type]
    assert state["combiners"]["a"]["steps"] == 1
    x = vector(state["model"])
    state = federation.step(strategy, state, 2)  # type: ignore[arg-type]
    np.testing.assert_allclose(
        vector(state["model"]), (trained(losses["client-1"], x) + trained(losses["client-2"], x)) / 2, rtol=1e-12
    )
    assert state["combiners"]["a"]["steps"] == 1
    assert federation.combiners["a"].reason == "ValueError: expected more"
    assert federation.combiners[""].num_ok == 1


def test_the_root_that_raises_ends_the_round() -> None:
    strategy = TreeStrategy(Combiner("", Raising(), ("client-0",)))
    federation = federation_of(losses_of(1))
    state = federation.step(strategy, strategy.init(weights(np.zeros(SIZE))), 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected more"):
        federation.step(strategy, state, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ({"name": "vrcs", "theta": 0.1, "p": 0.5, "q": 0.5}, "vrcs asks groups of clients"),
        ({"name": "fedasync"}, "fedasync cannot be in a tree: its requests stay outstanding"),
        ({"name": "fedsgd"}, "fedsgd cannot have combiners below it: it asks clients for gradient"),
    ],
)
def test_strategies_that_need_more_of_clients_are_refused_at_the_root(strategy: State, message: str) -> None:
    tree = {"others": "root", "children": [{"name": "a", "clients": ["client-0"]}]}
    sections = {"package": ".", "rounds": 1, "clients": {"count": 2}, "strategy": strategy, "topology": tree}
    with pytest.raises(ConfigError, match=f"topology, the root: {message}"):
        tree_of(config_of(sections, resolve=resolved), ["client-0", "client-1"])


def test_entities_make_a_tree_of_any_depth(tmp_path: Path) -> None:
    lines = ["- {id: e0}", *(f"- {{id: e{k}, parent: e{k - 1}}}" for k in range(1, 201))]
    (tmp_path / "entities.yaml").write_text("\n".join(lines))
    config = config_of(
        {
            "package": ".",
            "rounds": 1,
            "clients": {"entities": str(tmp_path / "entities.yaml")},
            "topology": {"from": "entities"},
        },
        resolve=resolved,
    )
    tree = tree_of(config, ["e200"])
    assert tree is not None
    assert tree.root.children[0].path == "e0"
    assert len(list(tree.root.everyone())) == 201
