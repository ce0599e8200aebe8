"""FedBuff: asynchronous training with a buffer of answers; the server takes a step whenever it is full."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpkg.registry import Count, Positive
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
    "fedbuff",
    equation="D_i = w_i - w(t - tau_i);  w <- w + (eta / K) sum_i s(tau_i) D_i over a buffer of K answers;  "
    "s = 1 (constant), (1 + tau)^-a (polynomial), or 1 up to b, then 1 / (a (tau - b) + 1) (hinge)",
    paper="Nguyen et al. 2022, Federated Learning with Buffered Asynchronous Aggregation, arXiv:2106.06639, Alg. 1",
)
@dataclass(frozen=True)
class FedBuff:
    """Buffered asynchronous aggregation, in which the server takes a step after every few answers.

    A round is one step of the server, with the usable ones of the next ``buffer`` answers, or of those after them if
    none is usable. Each client trains from the current global model when it begins, and another client begins when it
    has answered. The session stops if ``concurrency`` clients fail one after another. The strategy chooses the clients:
    only ``held_out`` of the run's ``sampler`` has an effect.

    Args:
        buffer: Number K of answers in a step. 10 is usual; 1 takes a step for each answer, and more average out more
            noise.
        learning_rate: Step size eta of the server. 1 takes the weighted mean of the differences in the buffer.
    """

    buffer: Count = 10
    concurrency: Concurrency = 20
    learning_rate: Positive = 1.0
    staleness: Staleness = "polynomial"
    a: Decay = 0.5
    b: Patience = 4.0
    clock: Clock = "virtual"

    traits = OF_ARRIVALS

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
                fold.add(position, reply.weights, max(s, MIN_WEIGHT))  # for the tensors that are no parameters
                size += 1
        return arrivals.result(with_parameters(fold.result(), parameters_of(w) + self.learning_rate / size * step))
