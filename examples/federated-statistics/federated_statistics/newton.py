"""Newton's method on sums that organizations compute, and the table of its result."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

INTERCEPT = "intercept"


class Point(NamedTuple):
    """Minus the log-likelihood (up to a constant), its gradient, and its second derivatives."""

    loss: float
    gradient: np.ndarray
    information: np.ndarray


class Found(NamedTuple):
    coefficients: np.ndarray
    covariance: np.ndarray
    iterations: int
    loss: float
    loss_at_start: float


def minimise(
    evaluate: Callable[[np.ndarray], Point], start: np.ndarray, names: Sequence[str], *, iterations: int = 50
) -> Found:
    """The coefficients at which a convex loss is least. Its terms are standardised, so steps can be compared.

    It ends when no coefficient would move by 1e-9 of the largest (or of 1). A step that raises the loss is halved.

    Raises:
        ValueError: terms depend on each other linearly, or the loss has no minimum (separation).
    """
    beta, point = start, evaluate(start)
    loss_at_start = point.loss
    check_rank(point.information, names)
    for iteration in range(1, iterations + 1):
        step = -np.linalg.solve(point.information, point.gradient)
        gain = -float(step @ point.gradient)
        if np.abs(step).max() < 1e-9 * max(1.0, np.abs(beta).max()):
            return Found(beta + step, np.linalg.inv(point.information), iteration, point.loss, loss_at_start)
        if gain < 1e-10 and np.abs(step).max() > 1e-2:
            raise separated(step, names)
        for _ in range(20):
            after = evaluate(beta + step)
            if after.loss <= point.loss + 1e-12 * abs(point.loss):
                break
            step = step / 2
        beta, point = beta + step, after
        if not np.all(np.isfinite(point.information)) or np.linalg.eigvalsh(point.information)[0] <= 0:
            raise separated(step, names)
    raise ValueError(f"the coefficients have not settled after {iterations} iterations")


def check_rank(information: np.ndarray, names: Sequence[str]) -> None:
    """ValueError: some terms are a linear combination of others."""
    size = np.sqrt(np.diag(information))
    if empty := [name for name, one in zip(names, size, strict=True) if not one > 0]:
        raise ValueError(f"the rows say nothing about '{empty[0]}': leave it out")
    values, vectors = np.linalg.eigh(information / np.outer(size, size))
    if values[0] < 1e-12 * values[-1]:
        weight = np.abs(vectors[:, 0])
        those = [name for name, one in zip(names, weight, strict=True) if one > 0.05 * weight.max()]
        raise ValueError(f"{' and '.join(map(repr, those))} depend on each other linearly: leave one of them out")


def separated(step: np.ndarray, names: Sequence[str]) -> ValueError:
    weight = np.where(np.array(names) == INTERCEPT, 0, np.abs(step))
    those = [name for name, one in zip(names, weight, strict=True) if one > 0.1 * weight.max()]
    return ValueError(
        f"separation: the coefficients of {', '.join(map(repr, those))} grow without end, because these columns tell "
        "the outcomes of some rows without error. Leave them out, or join levels of a category"
    )


def table(names: Sequence[str], coefficients: np.ndarray, covariance: np.ndarray) -> dict[str, dict[str, float | None]]:
    """Each coefficient with its standard error, z, and p-value by the normal distribution; None if the error is 0."""
    found = {}
    for name, beta, error in zip(names, coefficients.tolist(), np.sqrt(np.diag(covariance)).tolist(), strict=True):
        z = beta / error if error > 0 else None
        p = None if z is None else math.erfc(abs(z) / math.sqrt(2))
        found[name] = {"coefficient": beta, "standard_error": error, "z": z, "p": p}
    return found


def summed(told: Sequence[dict[str, Any]], key: str) -> np.ndarray:
    """The sum over organizations, in their order."""
    return np.sum([np.array(one[key], dtype=float) for one in told], axis=0)
