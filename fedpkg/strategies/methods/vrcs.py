"""VRCS and AccVRCS: two groups of clients are asked at different rates (complexity separation)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeAlias

from msgspec import Meta

from fedpkg.registry import BelowOne
from fedpkg.strategies.acceleration import Accelerated, Convexity, Coupling, DualStep, EndOfEpoch, StepLength
from fedpkg.strategies.base import Asks, Replies, Reply, State, Step, StepContext
from fedpkg.strategies.registry import register_strategy
from fedpkg.strategies.requests import gradient_at, mean_of, parameters_alone, prox
from fedpkg.strategies.traits import Traits

if TYPE_CHECKING:
    from fedpkg.weights.weights import Weights

_PAPER = (
    "Bylinkin et al. 2026, Accelerated Methods with Complexity Separation Under Data Similarity for Federated "
    "Learning Problems, arXiv:2601.08614"
)


GroupShare: TypeAlias = Annotated[
    BelowOne,
    Meta(
        description="Probability p that a step asks the group `f`; otherwise it asks `g`. A smaller p asks `f` less "
        "often, which suits clients of `f` that are similar to the server."
    ),
]


@register_strategy(
    "vrcs",
    equation="G_m = grad m(w) - grad m_1(w) for m = f, g;  Geom(q) times: xi = (grad f(x) - grad f_1(x) - G_f) / p "
    "with probability p, else (grad g(x) - grad g_1(x) - G_g) / (1 - p);  e = xi + G_f + G_g;  "
    "x <- argmin_y <e, y> + |y - x|^2 / (2 theta) + h_1(y)",
    paper=_PAPER,
)
@dataclass(frozen=True)
class Vrcs:
    """Variance reduction for h = f + g, the mean losses f and g of two groups of clients.

    The groups are ``f``, ``g`` and ``server``: one client whose data the server has, of both kinds, with the loss h_1 =
    f_1 + g_1. It is asked for ``gradient`` with the parameter ``part``, f or g (without: h_1), and for ``prox`` of h_1.
    With |f'' - f_1''| <= df and |g'' - g_1''| <= dg, the choice p = q = df^2 / (df^2 + dg^2) and theta =
    sqrt(p (1 - p) q) / (2 sqrt(dg^2 p + df^2 (1 - p))) asks f O(df / mu) times, and g O(dg^2 / (df mu)) times.
    """

    theta: StepLength
    p: GroupShare
    q: EndOfEpoch

    traits = Traits(
        entry_points=("gradient", "prox"), groups=("f", "g", "server"), chooses_clients=True, treatment="step"
    )

    def init(self, seed_model: Weights) -> State:
        return {"model": seed_model}

    def step(self, state: State, ctx: StepContext) -> Step:
        return {"model": (yield from self.epoch(state["model"], ctx))}

    def epoch(self, x: Weights, ctx: StepContext) -> Asks[Weights]:
        w, p = x, self.p
        G = {"f": (yield from _shift("f", w)), "g": (yield from _shift("g", w))}
        for _ in range(ctx.rng.geometric(self.q)):
            m, chance = ("f", p) if ctx.rng.random() < p else ("g", 1 - p)
            xi = ((yield from _shift(m, x)) - G[m]) / chance
            e = xi + G["f"] + G["g"]
            (solved,) = yield prox(x, e, self.theta, group="server")
            x = solved.weights.clone()
        return x


def _shift(m: str, x: Weights) -> Asks[Weights]:
    """grad m(x) - grad m_1(x)."""
    replies: Replies
    own: Reply
    replies, (own,) = yield [gradient_at(x, group=m, part=m), gradient_at(x, group="server", part=m)]
    return mean_of(replies, parameters_alone(x)) - own.weights


@register_strategy(
    "accvrcs",
    equation="x = tau z + (1 - tau) y;  y <- VRCS(x);  G = q (grad h_1(x) - grad h_1(y) + (x - y) / theta);  "
    "z <- (z / alpha + mu y - G) / (1 / alpha + mu)",
    paper=_PAPER,
)
def accvrcs(
    theta: StepLength, p: GroupShare, q: EndOfEpoch, mu: Convexity, tau: Coupling = None, alpha: DualStep = None
) -> Accelerated:
    """VRCS accelerated by Katyusha X."""
    return Accelerated(Vrcs(theta, p, q), mu=mu, tau=tau, alpha=alpha)
