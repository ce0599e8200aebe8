"""FedBuff: asynchronous training with a buffer; the server steps whenever so many clients have answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpkg.registry import Count, NotNegative, Positive
from fedpkg.strategies.arrivals import Arrivals, Clock, Staleness, staleness_factor
from fedpkg.strategies.base import Request, State, Step, StepContext
from fedpkg.strategies.registry import register_asking_strategy
from fedpkg.strategies.traits import Traits

if TYPE_CHECKING:
    from fedpkg.weights.weights import Weights


@register_asking_strategy(
    "fedbuff",
    equation="D_i = w_i - w^(t - tau_i);  w <- w + eta / K sum_{i in buffer} s(tau_i) D_i;  "
    "s: 1, (1 + tau)^-a, or 1 up to b and then 1 / (a (tau - b) + 1)",
    paper="Nguyen et al. 2022, Federated Learning with Buffered Asynchronous Aggregation, arXiv:2106.06639, Alg. 1",
)
@dataclass(frozen=True)
class FedBuff:
    """Buffered asynchronous aggregation.

    A round is one step of the server, with what is usable of the next ``buffer`` answers, or of those after them if
    nothing is. ``concurrency`` clients train at a time, each from the model that there was when it began. When a client
    has answered, another one begins; when as many have failed in turn, the session stops.

    With ``clock: virtual`` the section ``clock`` of the run.yaml says how long clients take, and the bits are the same
    on every machine. With ``clock: wall`` answers count as they arrive; a resumed round replays the recorded order.
    Of the run's ``sampler``, only ``held_out`` counts.
    """

    buffer: Count = 10  # K
    concurrency: Count = 20
    learning_rate: Positive = 1.0  # eta
    staleness: Staleness = "polynomial"
    a: NotNegative = 0.5
    b: NotNegative = 4.0
    clock: Clock = "virtual"

    traits = Traits(chooses_clients=True, heeds_required=False, treatment="step")

    def init(self, seed_model: Weights) -> State:
        return {"model": seed_model}

    def step(self, state: State, ctx: StepContext) -> Step:
        from fedpkg.strategies.steps import parameters_of, with_parameters
        from fedpkg.weights.fold import MIN_WEIGHT, MeanFold

        arrivals = Arrivals.of(state, self.concurrency, self.clock)
        w = state["model"]
        step, fold, size = parameters_of(w).zeros_like(), MeanFold(w), 0

        def train(client_id: str, model: Weights) -> Request:
            return Request(payload=model, clients=(client_id,), required=0)

        buffer = yield from arrivals.answers(ctx, self.buffer, train)
        for position, (replies, begun) in enumerate(buffer):
            s = staleness_factor(self.staleness, arrivals.version - begun, a=self.a, b=self.b)
            for reply in replies:
                step = step + s * (parameters_of(reply.weights) - parameters_of(arrivals.models[begun]))
                fold.add(position, reply.weights, max(s, MIN_WEIGHT))  # of it, what are no parameters
                size += 1
        return arrivals.result(with_parameters(fold.result(), parameters_of(w) + self.learning_rate / size * step))
