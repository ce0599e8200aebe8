"""Requests of optimisation methods (gradients and proximal steps), and the mean of replies."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from fedpkg.errors import AggregationError
from fedpkg.strategies.base import Replies, Reply, Request
from fedpkg.strategies.folds import Fold, MeansFold, Term, folded

if TYPE_CHECKING:
    from fedpkg.weights.weights import Weights


def gradient_at(
    x: Weights,
    *,
    group: str | None = None,
    clients: tuple[str, ...] | None = None,
    part: str | None = None,
    required: int | None = None,
) -> Request:
    """The gradient of each client's loss at x: its entry point ``gradient``.

    ``part`` names a part of the data, for a client that has several (the server).
    """
    return Request(
        payload=x,
        group=group,
        clients=clients,
        entry_point="gradient",
        reply="gradient",
        parameters={} if part is None else {"part": part},
        required=required,
    )


def prox(
    center: Weights,
    linear: Weights,
    theta: float,
    *,
    group: str | None = None,
    clients: tuple[str, ...] | None = None,
    required: int | None = None,
) -> Request:
    """argmin_y <linear, y> + |y - center|^2 / (2 theta) + f(y) with a client's loss f: its entry point ``prox``."""
    return Request(
        payload={"center": center, "linear": linear},
        group=group,
        clients=clients,
        entry_point="prox",
        parameters={"theta": theta},
        required=required,
    )


def mean_of(
    replies: Iterable[Reply],
    template: Weights,
    *,
    weight: Callable[[Reply], float] = lambda reply: 1.0,
) -> Weights:
    """The mean of the replies' weights, by default with equal shares; each must fit ``template``.

    See `fedpkg.weights.fold.MeanFold` for dtypes, order and memory.
    """
    return folded(mean_fold(template, weight=weight), replies)


def mean_fold(
    template: Weights,
    *,
    weight: Callable[[Reply], float] = lambda reply: 1.0,
    start: int = 0,
) -> Fold[Weights]:
    """The fold of `mean_of`, from a cohort position on."""
    return MeansFold(template, lambda reply: Term(reply.weights, weight(reply)), lambda mean: mean.weights, start)


def enough(answers: Collection[Replies], required: int, *, by: str = "round.required") -> None:
    """Wait for the replies to several requests.

    Raises:
        AggregationError: fewer than ``required`` of them are usable in total.
    """
    asked = [len(replies.asked) for replies in answers]
    usable = sum(asked) - sum(len(replies.missing) for replies in answers)
    if usable < required:
        raise AggregationError(
            f"{usable} usable updates of {sum(asked)} clients, {required} are required ({by})",
            hint="`fedpkg session show --round N` shows why; fix the cause, then resume the session",
        )


def parameters_alone(model: Weights) -> Weights:
    """The parameters of a model, in their dtypes, as gradients, deltas and control variates have them."""
    return model.filter(frozenset(model.parameters).__contains__)
