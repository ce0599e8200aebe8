"""The prox methods with variance reduction, on quadratics where all is known: they arrive, and by as many calls."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from quadratics import Federation, Quadratic, Vector, mean, vector, weights

from fedpkg.strategies.base import State, Step, StepContext, SteppingStrategy
from fedpkg.strategies.registry import make_strategy
from fedpkg.strategies.requests import gradient_at, mean_of, parameters_alone, prox
from fedpkg.weights.weights import Weights


def symmetric(rng: np.random.Generator, size: int, norm: float) -> Vector:
    """A random symmetric matrix of that spectral norm."""
    square = rng.standard_normal((size, size))
    square = square + square.T
    return square * (norm / np.linalg.norm(square, 2))


@dataclass
class Problem:
    """h = f + g, where the server's f_1 and g_1 differ from f and g by delta_f and delta_g."""

    federation: Federation
    h: Quadratic
    delta_f: float
    delta_g: float
    mu: float

    @property
    def p(self) -> float:
        return self.delta_f**2 / (self.delta_f**2 + self.delta_g**2)

    @property
    def theta(self) -> float:
        p, q = self.p, self.p
        return math.sqrt(p * (1 - p) * q) / math.sqrt(self.delta_g**2 * p + self.delta_f**2 * (1 - p)) / 2


def problem(delta_f: float, delta_g: float, mu: float, *, size: int = 12, clients: int = 4) -> Problem:
    rng = np.random.default_rng(7)
    basis, _ = np.linalg.qr(rng.standard_normal((size, size)))
    spectrum = np.geomspace(mu, 1.0, size)
    whole = basis @ np.diag(spectrum) @ basis.T
    losses: dict[str, dict[str, Quadratic]] = {}
    parts: dict[str, list[Quadratic]] = {}
    for part, delta in (("f", delta_f), ("g", delta_g)):
        spread = [symmetric(rng, size, delta) for _ in range(clients)]
        parts[part] = [
            Quadratic(whole / 2 + matrix - np.mean(spread, axis=0), rng.standard_normal(size)) for matrix in spread
        ]
        losses |= {f"{part}-{k}": {part: loss} for k, loss in enumerate(parts[part])}
    h = Quadratic(mean(parts["f"]).a + mean(parts["g"]).a, mean(parts["f"]).b + mean(parts["g"]).b)
    f_1, g_1 = (
        Quadratic(mean(parts[part]).a + symmetric(rng, size, delta), rng.standard_normal(size))
        for part, delta in (("f", delta_f), ("g", delta_g))
    )
    losses["server"] = {"f": f_1, "g": g_1, "": Quadratic(f_1.a + g_1.a, f_1.b + g_1.b)}
    groups = {part: [f"{part}-{k}" for k in range(clients)] for part in ("f", "g")} | {"server": ["server"]}
    mu = float(np.linalg.eigvalsh(h.a).min())
    return Problem(Federation(losses, groups), h, delta_f, delta_g, mu)


class Plain:
    """The full gradient and a proximal step: what VRCS saves calls against."""

    def __init__(self, theta: float) -> None:
        self.theta = theta

    def init(self, seed_model: Weights) -> State:
        return {"model": seed_model}

    def step(self, state: State, ctx: StepContext) -> Step:
        x: Weights = state["model"]
        e = None
        for part in ("f", "g"):
            replies, (own,) = yield [gradient_at(x, group=part, part=part), gradient_at(x, group="server", part=part)]
            shift = mean_of(replies, parameters_alone(x)) - own.weights
            e = shift if e is None else e + shift
        assert e is not None
        (solved,) = yield prox(x, e, self.theta, group="server")
        return {"model": solved.weights}


def calls_to(problem: Problem, strategy: SteppingStrategy, accuracy: float) -> tuple[int, int]:
    """How often the groups f and g are called until |x - x*|^2 is so small a part of what it was."""
    problem.federation.calls.clear()
    state = strategy.init(weights(np.zeros(len(problem.h.b))))
    solution = problem.h.solution
    for number in range(100_000):
        state = problem.federation.step(strategy, state, number)
        if float(np.sum((vector(state["model"]) - solution) ** 2)) <= accuracy * float(solution @ solution):
            return problem.federation.calls["f"], problem.federation.calls["g"]
    raise AssertionError("it does not arrive")


def the_three(problem: Problem, accuracy: float) -> dict[str, tuple[int, int]]:
    section = {"theta": problem.theta, "p": problem.p, "q": problem.p}
    return {
        "plain": calls_to(problem, Plain(1 / (problem.delta_f + problem.delta_g)), accuracy),
        "vrcs": calls_to(problem, make_strategy({"name": "vrcs", **section}), accuracy),  # type: ignore[arg-type]
        "accvrcs": calls_to(problem, make_strategy({"name": "accvrcs", **section, "mu": problem.mu}), accuracy),  # type: ignore[arg-type]
    }


@pytest.mark.soak
@pytest.mark.slow
def test_vrcs_saves_calls_to_the_similar_group() -> None:
    calls = the_three(problem(0.05, 0.3, 0.02), 1e-10)
    assert calls["vrcs"][0] < 0.65 * calls["plain"][0], calls
    assert calls["accvrcs"][0] < 0.75 * calls["vrcs"][0], calls
    assert calls["vrcs"][1] > 10 * calls["vrcs"][0], "at the price of calls to the other"


@pytest.mark.slow
@pytest.mark.soak
def test_vrcs_needs_half_and_accvrcs_a_quarter_of_plains_calls() -> None:
    """The published problem: delta_f .047, delta_g .496, mu .008, to 1e-10."""
    calls = the_three(problem(0.047, 0.496, 0.008), 1e-10)
    assert 0.25 < calls["vrcs"][0] / calls["plain"][0] < 0.55, calls
    assert 0.12 < calls["accvrcs"][0] / calls["plain"][0] < 0.28, calls
    assert 10_000 < calls["vrcs"][1] < 40_000 and 5_000 < calls["accvrcs"][1] < 20_000, calls


def similar_clients(
    delta: float, mu: float, *, clients: int = 8, size: int = 10
) -> tuple[Federation, Quadratic, float]:
    """Clients of which the first is the server's; their mean loss, and how strongly convex it is."""
    rng = np.random.default_rng(3)
    basis, _ = np.linalg.qr(rng.standard_normal((size, size)))
    whole = basis @ np.diag(np.geomspace(mu, 1.0, size)) @ basis.T
    spread = [symmetric(rng, size, delta) for _ in range(clients)]
    losses = [Quadratic(whole + matrix - np.mean(spread, axis=0), rng.standard_normal(size)) for matrix in spread]
    names = [f"client-{k}" for k in range(clients)]
    federation = Federation({name: {"": loss} for name, loss in zip(names, losses, strict=True)}, {"server": names[:1]})
    return federation, mean(losses), float(np.linalg.eigvalsh(mean(losses).a).min())


@pytest.mark.parametrize("name", ["svrp", "svrs", "accsvrs"])
def test_method_arrives_at_the_solution(name: str) -> None:
    federation, whole, mu = similar_clients(delta=0.05, mu=0.1)
    section = {
        "svrp": {"theta": mu / (2 * 0.1**2), "p": 1 / 8},
        "svrs": {"theta": 1.0, "q": 1 / 8},
        "accsvrs": {"theta": 1.0, "q": 1 / 8, "mu": mu},
    }[name]
    strategy = make_strategy({"name": name, **section})  # type: ignore[dict-item]
    state = strategy.init(weights(np.zeros(10)))
    for number in range(150):
        state = federation.step(strategy, state, number)  # type: ignore[arg-type]
    assert np.linalg.norm(vector(state["model"]) - whole.solution) < 1e-10 * np.linalg.norm(whole.solution)


def test_parameters_out_of_range_are_refused() -> None:
    from fedpkg.errors import ConfigError

    with pytest.raises(ConfigError, match=r"'strategy\.q'"):
        make_strategy({"name": "vrcs", "theta": 0.1, "p": 0.5, "q": 2})
    with pytest.raises(ConfigError, match="theta"):
        make_strategy({"name": "vrcs", "p": 0.5, "q": 0.5})
