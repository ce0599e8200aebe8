"""The wrapper of Katyusha X around a method whose round is one variance-reduced epoch of proximal steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fedpkg.strategies.base import Asks, State, Step, StepContext
from fedpkg.strategies.requests import gradient_at, parameters_alone
from fedpkg.strategies.traits import Traits

if TYPE_CHECKING:
    from fedpkg.weights.weights import Weights


class Epoch(Protocol):
    """A method with proximal steps of length theta, of which an epoch has 1/q on average."""

    @property
    def theta(self) -> float: ...

    @property
    def q(self) -> float: ...

    @property
    def traits(self) -> Traits: ...

    def epoch(self, x: Weights, ctx: StepContext) -> Asks[Weights]:
        """The point after an epoch that begins at x."""
        ...


@dataclass(frozen=True)
class Accelerated:
    """Couple two sequences, y and z, so that sqrt(q / (theta mu)) epochs take the place of q / (theta mu).

        x = tau z + (1 - tau) y;  y <- epoch(x);  G = q (grad h_1(x) - grad h_1(y) + (x - y) / theta)
        z <- argmin_v |v - z|^2 / (2 alpha) + <G, v> + mu/2 |v - y|^2 = (z / alpha + mu y - G) / (1 / alpha + mu)

    z is a vector, no model: it has the parameters alone, and all that x has besides (running means and variances) is
    y's, as the clients left it.

    [Allen-Zhu 2018, Katyusha X, arXiv:1802.03866; Lin et al. 2023, arXiv:2304.07504, Alg. 2]
    """

    method: Epoch
    mu: float
    tau: float | None = None
    alpha: float | None = None

    @property
    def traits(self) -> Traits:
        return self.method.traits

    def init(self, seed_model: Weights) -> State:
        return {"model": seed_model, "z": parameters_alone(seed_model)}

    def step(self, state: State, ctx: StepContext) -> Step:
        y, z = state["model"], state["z"]
        theta, q, mu = self.method.theta, self.method.q, self.mu
        tau = self.tau or min(1.0, math.sqrt(theta * mu / q) / 2)
        alpha = self.alpha or theta / (4 * q * tau)
        x = tau * z + (1 - tau) * y
        y = yield from self.method.epoch(x, ctx)
        (at_x,), (at_y,) = yield [gradient_at(x, group="server"), gradient_at(y, group="server")]
        big_g = q * (at_x.weights - at_y.weights) + (q / theta) * parameters_alone(x - y)
        z = (z / alpha + mu * parameters_alone(y) - big_g) / (1 / alpha + mu)
        return {"model": y, "z": z}
