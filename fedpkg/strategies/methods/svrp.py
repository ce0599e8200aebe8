"""SVRP: variance-reduced proximal steps, each on the loss of one client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpkg.registry import Share
from fedpkg.strategies.acceleration import StepLength
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
    """Stochastic variance-reduced proximal point, in which a round keeps one anchor w for Geom(p) steps.

    All clients are asked for ``gradient`` at w, then one at a time for ``prox``. A client that does not answer is not
    asked again in this round. Only ``held_out`` of the run's ``sampler`` has an effect.

    Args:
        p: Probability p that a round ends after a step: it has 1 / p steps on average. About 1 / n for n clients is
            usual, so that all gradients and all steps cost the same.
    """

    theta: StepLength
    p: Share

    traits = Traits(entry_points=("gradient", "prox"), chooses_clients=True, treatment="step")

    def init(self, seed_model: Weights) -> State:
        return {"model": seed_model}

    def step(self, state: State, ctx: StepContext) -> Step:
        x = w = state["model"]
        replies = list((yield gradient_at(w, clients=tuple(client.client_id for client in ctx.clients))))
        at_w = {reply.client_id: reply.weights for reply in replies}  # mapped files on disk
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
