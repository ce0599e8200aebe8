"""FedAsync: the server mixes in each client's model as it arrives, the less the older the model that it began from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpkg.registry import Count, NotNegative, Share
from fedpkg.strategies.arrivals import Arrivals, Clock, Staleness, staleness_factor
from fedpkg.strategies.base import Request, State, Step, StepContext
from fedpkg.strategies.registry import register_asking_strategy
from fedpkg.strategies.traits import Traits

if TYPE_CHECKING:
    from fedpkg.weights.weights import Weights


@register_asking_strategy(
    "fedasync",
    equation="w <- (1 - alpha_t) w + alpha_t w_i, alpha_t = alpha s(tau_i);  "
    "s: 1, (1 + tau)^-a, or 1 up to b and then 1 / (a (tau - b) + 1)",
    paper="Xie et al. 2019, Asynchronous Federated Optimization, arXiv:1903.03934, Alg. 1",
)
@dataclass(frozen=True)
class FedAsync:
    """Asynchronous federated optimisation.

    A round is the next answer; clients that fail are passed over, up to ``concurrency`` of them. ``concurrency``
    clients train at a time, each from the model that there was when it began. Clients may use ``proximal_mu`` = ``mu``
    in their loss, as the paper does.

    With ``clock: virtual`` the section ``clock`` of the run.yaml says how long clients take, and the bits are the same
    on every machine. With ``clock: wall`` answers count as they arrive; a resumed round replays the recorded order.
    Of the run's ``sampler``, only ``held_out`` counts.
    """

    alpha: Share = 0.6
    concurrency: Count = 10
    staleness: Staleness = "polynomial"
    a: NotNegative = 0.5
    b: NotNegative = 4.0
    mu: NotNegative = 0.0
    clock: Clock = "virtual"

    traits = Traits(chooses_clients=True, heeds_required=False, treatment="step")

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
