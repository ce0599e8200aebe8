"""Mime and MimeLite: clients take their local steps with the server's momentum, which is fixed during a round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeAlias

from msgspec import Meta

from fedpkg.registry import BelowOne
from fedpkg.strategies.base import Replies, Request, State, Step, StepContext
from fedpkg.strategies.registry import register_strategy
from fedpkg.strategies.requests import gradient_at, mean_of, parameters_alone
from fedpkg.strategies.traits import Traits

if TYPE_CHECKING:
    from fedpkg.weights.weights import Weights

_PAPER = "Karimireddy et al. 2021, Breaking the Centralized Barrier: Mime, arXiv:2008.03606, Alg. 1"


Momentum: TypeAlias = Annotated[
    BelowOne,
    Meta(
        description="Momentum beta of the clients' steps, which is that of the server. 0.9 is usual; 0: no momentum. "
        "Clients find it as `momentum`."
    ),
]


@dataclass(frozen=True)
class _Mime:
    momentum: float
    corrects: bool  # True: Mime. False: MimeLite.

    traits = Traits(entry_points=("gradient", "train"), treatment="step")

    def init(self, seed_model: Weights) -> State:
        return {"model": seed_model, "m": parameters_alone(seed_model).zeros_like()}

    def step(self, state: State, ctx: StepContext) -> Step:
        x, m, beta = state["model"], state["m"], self.momentum
        gradients: Replies = yield gradient_at(x)
        c = mean_of(gradients, m)
        cohort = tuple(name for name in gradients.asked if name not in gradients.missing)
        sets = {"x": x, "m": m, "c": c} if self.corrects else {"x": x, "m": m}
        replies: Replies = yield Request(payload=sets, clients=cohort, parameters={"momentum": beta})
        return {"model": mean_of(replies, x), "m": (1 - beta) * c + beta * m}


@register_strategy(
    "mime",
    equation="c = mean_S grad f_i(x);  "
    "client: y <- y - eta ((1 - beta) (grad f_i(y; z) - grad f_i(x; z) + c) + beta m);  "
    "m <- (1 - beta) c + beta m;  x <- mean_S y_i",
    paper=_PAPER,
)
def mime(momentum: Momentum = 0.9) -> _Mime:
    """Local steps with the server's momentum and a correction towards the cohort's gradient, as in SVRG.

    The cohort S is asked for ``gradient`` at x, then to ``train``: clients get the sets ``x``, ``m`` and ``c``.
    """
    return _Mime(momentum, corrects=True)


@register_strategy(
    "mimelite",
    equation="client: y <- y - eta ((1 - beta) grad f_i(y; z) + beta m);  "
    "m <- (1 - beta) mean_S grad f_i(x) + beta m;  x <- mean_S y_i",
    paper=_PAPER,
)
def mimelite(momentum: Momentum = 0.9) -> _Mime:
    """Mime without the correction: clients get the sets ``x`` and ``m``."""
    return _Mime(momentum, corrects=False)
