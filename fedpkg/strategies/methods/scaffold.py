"""SCAFFOLD: control variates correct the drift of clients with different data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpkg.registry import Positive
from fedpkg.strategies.base import Replies, Request, State, Step, StepContext
from fedpkg.strategies.folds import Fold, Folded, MeansFold, Term, folded
from fedpkg.strategies.registry import register_strategy
from fedpkg.strategies.requests import parameters_alone
from fedpkg.strategies.traits import Traits
from fedpkg.types import ReplyKind

if TYPE_CHECKING:
    from fedpkg.weights.weights import Weights


@register_strategy(
    "scaffold",
    equation="client: y <- y - eta_l (g_i(y) - c_i + c);  x <- x + eta_g mean_S(y_i - x);  "
    "c <- c + (|S| / N) mean_S(dc_i)",
    paper="Karimireddy et al. 2020, SCAFFOLD: Stochastic Controlled Averaging, arXiv:1910.06378, Alg. 1",
)
@dataclass(frozen=True)
class Scaffold:
    """Stochastic controlled averaging: control variates of the server and of each client correct the local steps.

    A client gets the sets ``x`` and ``c`` and keeps its own c_i (at first 0) in its state folder. It takes K local
    steps, and sends ``x``, its model y_i, and ``dc`` = c_i+ - c_i, where c_i+ = c_i - c + (x - y_i) / (K eta_l), or the
    gradient at x.

    Args:
        learning_rate: Step size eta_g of the server. 1 takes the mean of the clients' models; below 1 the model moves
            only a share of the way.
    """

    learning_rate: Positive = 1.0

    traits = Traits(
        treatment="step",
        in_trees="above_clients",
        why_not_in_trees="each client has a control variate of its own",
        clients_send=("dc",),
    )

    def init(self, seed_model: Weights) -> State:
        return {"model": seed_model, "c": parameters_alone(seed_model).zeros_like()}

    def fold(self, state: State, start: int = 0) -> Fold[Folded]:
        templates = {"x": state["model"], "dc": state["c"]}
        return MeansFold(templates, lambda reply: Term(reply.sets), lambda means: means, start)

    def step(self, state: State, ctx: StepContext) -> Step:
        from fedpkg.strategies.steps import moved

        x, c = state["model"], state["c"]
        replies: Replies = yield Request(payload={"x": x, "c": c}, reply_kind=ReplyKind.SETS, sets={"x": x, "dc": None})
        means = folded(self.fold(state), replies)
        x = moved(x, means.sets["x"], self.learning_rate)
        c = c + means.count / len(ctx.clients) * means.sets["dc"]
        return {"model": x, "c": c}
