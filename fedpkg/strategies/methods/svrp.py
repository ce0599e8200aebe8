"""SVRP: variance-reduced proximal steps, each on one client's own loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpkg.registry import Positive, Share
from fedpkg.strategies.base import Replies, State, Step, StepContext
from fedpkg.strategies.registry import register_strategy
from fedpkg.strategies.requests import enough, gradient_at, mean_of, parameters_alone, prox
from fedpkg.strategies.traits import Traits

if TYPE_CHECKING:
    from fedpkg.weights.weights import Weights


@register_strategy(
    "svrp",
    equation="g = grad f(w) - grad f_i(w);  x <- prox_{theta f_i}(x - theta g), i uniform;  w <- x with probability p",
    paper="Khaled and Jin 2023, Faster Federated Optimization under Second-order Similarity, arXiv:2209.02257, Alg. 2",
)
@dataclass(frozen=True)
class Svrp:
    """Stochastic variance-reduced proximal point. A round is the life of one anchor w: Geom(p) steps.

    All clients are asked for ``gradient`` at w, then one at a time for ``prox``; who does not answer is passed over,
    and asked no more in this round. Of the run's ``sampler``, only ``held_out`` counts.
    """

    theta: Positive
    p: Share

    traits = Traits(entry_points=("gradient", "prox"), chooses_clients=True, treatment="step")

    def init(self, seed_model: Weights) -> State:
        return {"model": seed_model}

    def step(self, state: State, ctx: StepContext) -> Step:
        x = w = state["model"]
        replies = list((yield gradient_at(w, clients=tuple(client.client_id for client in ctx.clients))))
        at_w = {reply.client_id: reply.weights for reply in replies}  # mapped: they lie on the disk
        mean = mean_of(replies, parameters_alone(w))
        failed: list[Replies] = []
        steps = ctx.rng.geometric(self.p)
        while steps and at_w:
            i = sorted(at_w)[ctx.rng.integers(len(at_w))]
            solved: Replies = yield prox(x, mean - at_w[i], self.theta, clients=(i,), required=0)
            for reply in solved:
                x, steps = reply.weights.clone(), steps - 1
            if solved.missing:
                failed.append(solved)
                del at_w[i]
        if x is w:
            enough(failed, 1, by="for a step")
        return {"model": x}
