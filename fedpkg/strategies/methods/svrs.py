"""SVRS and AccSVRS: gradient sliding with variance reduction, for clients with data similar to the server's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpkg.strategies.acceleration import Accelerated, Convexity, Coupling, DualStep, EndOfEpoch, StepLength
from fedpkg.strategies.base import Asks, Replies, Reply, State, Step, StepContext
from fedpkg.strategies.registry import register_strategy
from fedpkg.strategies.requests import enough, gradient_at, mean_of, parameters_alone, prox
from fedpkg.strategies.traits import Traits

if TYPE_CHECKING:
    from fedpkg.weights.weights import Weights

_PAPER = (
    "Lin, Han, Ye, Zhang 2023, Stochastic Distributed Optimization under Average Second-order Similarity, "
    "arXiv:2304.07504"
)


@register_strategy(
    "svrs",
    equation="e = grad(f_i - f_1)(x) - grad(f_i - f_1)(w) + grad(f - f_1)(w), i uniform;  "
    "x <- argmin_y <e, y> + |y - x|^2 / (2 theta) + f_1(y);  Geom(q) times",
    paper=_PAPER,
)
@dataclass(frozen=True)
class Svrs:
    """Stochastic variance-reduced sliding, in which a round is one epoch of Geom(q) steps from an anchor w.

    The group ``server`` is one client with the loss f_1, whose data the server has. Its entry point ``prox`` solves for
    the next x. All clients are asked for ``gradient``. A client that does not answer is not drawn again in this round.
    Only ``held_out`` of the run's ``sampler`` has an effect.
    """

    theta: StepLength
    q: EndOfEpoch

    traits = Traits(entry_points=("gradient", "prox"), groups=("server",), chooses_clients=True, treatment="step")

    def init(self, seed_model: Weights) -> State:
        return {"model": seed_model}

    def step(self, state: State, ctx: StepContext) -> Step:
        return {"model": (yield from self.epoch(state["model"], ctx))}

    def epoch(self, x: Weights, ctx: StepContext) -> Asks[Weights]:
        w = x
        at_server: Reply
        everyone = tuple(client.client_id for client in ctx.clients)
        answers, (at_server,) = yield [gradient_at(w, clients=everyone), gradient_at(w, group="server")]
        replies = list(answers)
        f_w = {reply.client_id: reply.weights for reply in replies}  # mapped files on disk
        f1_w: Weights = at_server.weights
        g = mean_of(replies, parameters_alone(w)) - f1_w
        failed: list[Replies] = []
        steps = ctx.rng.geometric(self.q)
        while steps and f_w:
            i = sorted(f_w)[ctx.rng.integers(len(f_w))]
            one: Replies
            one, (at_server,) = yield [gradient_at(x, clients=(i,), required=0), gradient_at(x, group="server")]
            for f_x in one:
                e = (f_x.weights - at_server.weights) - (f_w[i] - f1_w) + g
                (solved,) = yield prox(x, e, self.theta, group="server")
                x, steps = solved.weights.clone(), steps - 1
            if one.missing:
                failed.append(one)
                del f_w[i]
        if x is w:
            enough(failed, 1, by="for a step")
        return x


@register_strategy(
    "accsvrs",
    equation="x = tau z + (1 - tau) y;  y <- SVRS(x);  G = q (grad f_1(x) - grad f_1(y) + (x - y) / theta);  "
    "z <- (z / alpha + mu y - G) / (1 / alpha + mu)",
    paper=_PAPER,
)
def accsvrs(
    theta: StepLength, q: EndOfEpoch, mu: Convexity, tau: Coupling = None, alpha: DualStep = None
) -> Accelerated:
    """SVRS accelerated by Katyusha X."""
    return Accelerated(Svrs(theta, q), mu=mu, tau=tau, alpha=alpha)
