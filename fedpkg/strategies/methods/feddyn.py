"""FedDyn: dynamic regularisation aligns the clients' optima with the global one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpkg.registry import Positive
from fedpkg.strategies.base import Replies, Request, State, Step, StepContext
from fedpkg.strategies.folds import Fold, folded
from fedpkg.strategies.registry import register_asking_strategy
from fedpkg.strategies.requests import mean_fold, parameters_alone
from fedpkg.strategies.traits import Traits

if TYPE_CHECKING:
    from fedpkg.weights.weights import Weights


@register_asking_strategy(
    "feddyn",
    equation="client: x_k = argmin_y L_k(y) - <g_k, y> + alpha/2 |y - x|^2, g_k <- g_k - alpha (x_k - x);  "
    "h <- h - (alpha/N) sum_P (x_k - x);  x <- mean_P(x_k) - h / alpha",
    paper="Acar et al. 2021, Federated Learning Based on Dynamic Regularization, arXiv:2111.04263, Alg. 1",
)
@dataclass(frozen=True)
class FedDyn:
    """A linear and a quadratic term in each client's loss give all of them the same stationary point.

    A client keeps its g_k (at first 0) in its state folder, and sends x_k. P are the clients that answered, N is the
    number of all clients.

    Args:
        alpha: Weight alpha of both terms. From 0.001 to 0.1 is usual: a large value keeps clients near the global
            model, a small one makes the correction h / alpha unstable. Clients find it as `alpha`.
    """

    alpha: Positive = 0.01

    traits = Traits(
        treatment="step",
        in_trees="above_clients",
        why_not_in_trees="each client keeps a term of its own",
        clients_read=("alpha",),
        client_lines=("FedDyn",),
    )

    def init(self, seed_model: Weights) -> State:
        return {"model": seed_model, "h": parameters_alone(seed_model).zeros_like()}

    def fold(self, state: State, start: int = 0) -> Fold[Weights]:
        return mean_fold(state["model"], start=start)

    def step(self, state: State, ctx: StepContext) -> Step:
        from fedpkg.strategies.steps import parameters_of, with_parameters

        x, h = state["model"], state["h"]
        replies: Replies = yield Request(payload=x, parameters={"alpha": self.alpha})
        mean = folded(self.fold(state), replies)
        size = len(replies.asked) - len(replies.missing)
        h = h - self.alpha * size / len(ctx.clients) * (parameters_of(mean) - parameters_of(x))
        x = with_parameters(mean, parameters_of(mean) - h / self.alpha)
        return {"model": x, "h": h}
