"""Katyusha X, a wrapper that accelerates methods whose round is a variance-reduced epoch of proximal steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Protocol, TypeAlias

from msgspec import Meta

from fedpkg.registry import Positive, Share
from fedpkg.strategies.base import Asks, State, Step, StepContext
from fedpkg.strategies.requests import gradient_at, parameters_alone
from fedpkg.strategies.traits import Traits

if TYPE_CHECKING:
    from fedpkg.weights.weights import Weights


# Parameters that these methods share, with their explanations.
StepLength: TypeAlias = Annotated[
    Positive,
    Meta(
        description="Length theta of a proximal step, which minimises the loss plus |y - x|^2 / (2 theta). The more "
        "similar the clients, the longer it can be. Too long steps diverge, short ones are slow."
    ),
]
EndOfEpoch: TypeAlias = Annotated[
    Share,
    Meta(
        description="Probability q that an epoch, which is a round, ends after a step: it has 1 / q steps on average. "
        "About 1 / n for n clients is usual."
    ),
]
Convexity: TypeAlias = Annotated[
    Positive,
    Meta(
        description="Strong convexity mu of the loss, a lower bound of its curvature. Too large a value may "
        "diverge, too small a value accelerates less."
    ),
]
Coupling: TypeAlias = Annotated[
    Share | None,
    Meta(description="Weight tau of z in the point where an epoch begins. null: min(1, sqrt(theta mu / q) / 2)."),
]
DualStep: TypeAlias = Annotated[Positive | None, Meta(description="Step length alpha of z. null: theta / (4 q tau).")]


class Epoch(Protocol):
    """A method with proximal steps of length theta, with 1 / q of them in an epoch on average."""

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
    """Couple two sequences, y and z, so that the number of epochs is sqrt(q / (theta mu)) instead of q / (theta mu).

        x = tau z + (1 - tau) y;  y <- epoch(x);  G = q (grad h_1(x) - grad h_1(y) + (x - y) / theta)
        z <- argmin_v |v - z|^2 / (2 alpha) + <G, v> + mu/2 |v - y|^2 = (z / alpha + mu y - G) / (1 / alpha + mu)

    z has parameters alone. The other tensors of x (running means and variances) are those of y, unchanged.

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
