"""FedAsync: the server mixes in each client's model as it arrives, with a smaller weight if it is stale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpkg.registry import NotNegative, Share
from fedpkg.strategies.arrivals import (
    OF_ARRIVALS,
    Arrivals,
    Clock,
    Concurrency,
    Decay,
    Patience,
    Staleness,
    staleness_factor,
)
from fedpkg.strategies.base import Request, State, Step, StepContext
from fedpkg.strategies.registry import register_asking_strategy

if TYPE_CHECKING:
    from fedpkg.weights.weights import Weights


@register_asking_strategy(
    "fedasync",
    equation="w <- (1 - alpha_t) w + alpha_t w_i, alpha_t = alpha s(tau_i);  "
    "s = 1 (constant), (1 + tau)^-a (polynomial), or 1 up to b, then 1 / (a (tau - b) + 1) (hinge)",
    paper="Xie et al. 2019, Asynchronous Federated Optimization, arXiv:1903.03934, Alg. 1",
)
@dataclass(frozen=True)
class FedAsync:
    """Asynchronous federated optimisation, in which each answer moves the global model.

    A round is the next usable answer; it fails if ``concurrency`` clients fail one after another. Each client trains
    from the current global model when it begins. The strategy chooses the clients: only ``held_out`` of the run's
    ``sampler`` has an effect.

    Args:
        alpha: Share alpha of a fresh answer in the next model. A smaller one changes the model less with each answer;
            with 1 the answer is the next model.
        mu: Weight mu of a proximal term in the clients' loss, which they find as `proximal_mu`. 0: none.
    """

    alpha: Share = 0.6
    concurrency: Concurrency = 10
    staleness: Staleness = "polynomial"
    a: Decay = 0.5
    b: Patience = 4.0
    mu: NotNegative = 0.0
    clock: Clock = "virtual"

    traits = OF_ARRIVALS

    def init(self, seed_model: Weights) -> State:
        return {"model": seed_model}

    def step(self, state: State, ctx: StepContext) -> Step:
        from fedpkg.strategies.steps import moved

        arrivals = Arrivals.of(state, self.concurrency, self.clock)
        said = {"proximal_mu": self.mu} if self.mu else {}

        def train(client_id: str, model: Weights) -> Request:
            return Request(payload=model, clients=(client_id,), parameters=said, required=0)

        ((replies, begun),) = yield from arrivals.answers(ctx, 1, train)
        s = staleness_factor(self.staleness, arrivals.version - begun, a=self.a, b=self.b)
        w = state["model"]
        for reply in replies:
            w = moved(w, reply.weights.clone(), self.alpha * s)
        return arrivals.result(w)
