"""FedSGD: clients send gradients, and the server takes the step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from fedpkg.registry import Part
from fedpkg.strategies.base import Replies, State, Step, StepContext
from fedpkg.strategies.folds import Fold, folded
from fedpkg.strategies.registry import register_asking_strategy
from fedpkg.strategies.requests import gradient_at, mean_fold, parameters_alone
from fedpkg.strategies.server_optimisers.sgd import Sgd
from fedpkg.strategies.traits import Traits

if TYPE_CHECKING:
    from fedpkg.weights.weights import Weights


@register_asking_strategy(
    "fedsgd",
    equation="g = sum_k (n_k / n) grad f_k(w);  w <- server_optimiser(w, g)",
    paper="McMahan et al. 2017, Communication-Efficient Learning of Deep Networks, arXiv:1602.05629",
)
@dataclass(frozen=True)
class FedSgd:
    """Gradient descent on the server, with the gradients from the clients' entry point ``gradient``.

    Args:
        server_optimiser: Takes the step along the mean gradient: the name of a server optimiser, or its section. Its
            learning rate is that of the training; `sgd` has a rate of 1 and momentum 0.9 unless it is set.
    """

    server_optimiser: Annotated[Any, Part("server_optimiser")] = "sgd"

    @property
    def traits(self) -> Traits:
        return Traits(entry_points=("gradient",), treatment="parameters", server_optimiser=self.server_optimiser)

    def init(self, seed_model: Weights) -> State:
        return {"model": seed_model, "memory": {}}

    def fold(self, state: State, start: int = 0) -> Fold[Weights]:
        return mean_fold(parameters_alone(state["model"]), weight=lambda reply: reply.num_examples, start=start)

    def step(self, state: State, ctx: StepContext) -> Step:
        from fedpkg.strategies.steps import parameters_of, with_parameters

        w = state["model"]
        replies: Replies = yield gradient_at(w)
        g = folded(self.fold(state), replies)
        aggregate = with_parameters(w, parameters_of(w) - parameters_of(g))  # so that w - aggregate is g
        optimiser = Sgd(momentum=0.0) if self.server_optimiser == "sgd" else self.server_optimiser
        model, memory = optimiser.step(w, aggregate, state["memory"])
        return {"model": model, "memory": memory}
