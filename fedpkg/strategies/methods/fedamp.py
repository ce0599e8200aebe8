"""FedAMP: each client gets a personal model, a mean of the models of similar clients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpkg.registry import NotNegative, Positive
from fedpkg.strategies.base import Replies, Request, State, Step, StepContext
from fedpkg.strategies.registry import register_asking_strategy
from fedpkg.strategies.requests import enough
from fedpkg.strategies.traits import Traits

if TYPE_CHECKING:
    from fedpkg.weights.weights import Weights


@register_asking_strategy(
    "fedamp",
    equation="xi_ij = alpha A'(|w_i - w_j|^2), A(x) = 1 - exp(-x / sigma), xi_ii = 1 - sum_j xi_ij;  "
    "u_i = sum_j xi_ij w_j;  client: w_i = argmin_w F_i(w) + lambda / (2 alpha) |w - u_i|^2",
    paper="Huang et al. 2021, Personalized Cross-Silo Federated Learning on Non-IID Data, arXiv:2007.03797, Alg. 1",
)
@dataclass(frozen=True)
class FedAmp:
    """Attentive message passing: each client trains from a mean of the models of similar clients.

    The session's global model is the mean of all clients' models, which are in the strategy's state. Clients find
    ``proximal_mu`` = lambda / alpha in task.json. If alpha is so large that xi_ii would be negative, the shares of the
    others are scaled down to a sum of 1.

    Args:
        alpha: Step size alpha of the attraction between models. A larger one mixes in more of the other models.
        sigma: Scale sigma of the squared distance between two models within which they attract each other. Take the
            typical squared distance: with a much smaller one clients train alone, with a much larger one all attract
            each other alike.
        regularisation: Weight lambda of the clients' distance to u_i in their loss. 0: only the start of their training
            depends on u_i.
    """

    alpha: Positive = 1.0
    sigma: Positive = 1.0
    regularisation: NotNegative = 1.0

    traits = Traits(
        treatment="aggregate",
        in_trees="above_clients",
        why_not_in_trees="each client gets a model of its own",
        clients_read=("proximal_mu",),
        client_lines=("fedprox", "proximal_term"),
    )

    def init(self, seed_model: Weights) -> State:
        return {"model": seed_model, "personal": {}}

    def step(self, state: State, ctx: StepContext) -> Step:
        from fedpkg.weights.fold import MeanFold

        w: dict[str, Weights] = dict(state["personal"])
        mu = self.regularisation / self.alpha
        answers: tuple[Replies, ...] = yield [
            Request(
                payload=self._message(name, w) if name in w else state["model"],
                clients=(name,),
                parameters={"proximal_mu": mu},
                required=0,
            )
            for name in ctx.sample()
        ]
        enough(answers, ctx.required)
        for replies in answers:
            for reply in replies:
                w[reply.client_id] = reply.weights.clone()
        mean = MeanFold(state["model"])
        for position, client in enumerate(ctx.clients):
            if client.client_id in w:
                mean.add(position, w[client.client_id], 1.0)
        return {"model": mean.result() if w else state["model"], "personal": w}

    def _message(self, i: str, w: dict[str, Weights]) -> Weights:
        """u_i."""
        from fedpkg.strategies.steps import gradient_of, parameters_of, squared_norm, with_parameters

        shares = {
            j: self.alpha * math.exp(-squared_norm(gradient_of(w[i], w_j)) / self.sigma) / self.sigma
            for j, w_j in w.items()
            if j != i
        }
        excess = max(1.0, sum(shares.values()))
        mine = parameters_of(w[i])
        u = mine
        for j, share in shares.items():
            u = u + (share / excess) * (parameters_of(w[j]) - mine)
        return with_parameters(w[i], u)
