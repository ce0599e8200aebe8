"""Generalised linear models with canonical links, for which Newton's method is iteratively reweighted least squares."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from vantage6.algorithm.tools.decorators import algorithm_client, data

from .asking import ask
from .columns import Levels
from .moments import agreed_design, standardised
from .newton import INTERCEPT, Point, minimise, summed, table

FAMILIES = ("gaussian", "binomial", "poisson")
OUTCOMES = {"binomial": "the outcome of a logistic regression is 0 or 1", "poisson": "a count is not negative"}


@algorithm_client
def glm(
    client: Any,
    outcome: str,
    predictors: list[str],
    family: str = "gaussian",
    categorical: list[str] | None = None,
    organizations: list[int] | None = None,
) -> dict[str, Any]:
    """Regression of a column on others: linear (gaussian), logistic (binomial) or of counts (poisson).

    Columns of texts, and those named in ``categorical``, are compared with their first level. Rows with missing values
    are left out. The coefficients are exact to about 1e-9 of a standard deviation.
    """
    if family not in FAMILIES:
        raise ValueError(f"family is one of {', '.join(FAMILIES)}, not {family!r}")
    shared = agreed_design(client, predictors, categorical or [], [outcome], organizations)
    names, mean_outcome = [INTERCEPT, *shared.names], float(shared.of_others.mean[0])
    if not shared.of_others.squares[0] > 0:
        raise ValueError(f"the outcome '{outcome}' has the same value in all rows that are complete")
    if shared.count <= len(names):
        raise ValueError(f"{shared.count} complete rows are too few for {len(names)} coefficients")

    def evaluate(beta: np.ndarray) -> Point:
        asked = {"outcome": outcome, "family": family, "coefficients": beta.tolist(), **shared.arguments}
        told = ask(client, "partial_glm", organizations, **asked)
        return Point(float(summed(told, "loss")), summed(told, "gradient"), summed(told, "information"))

    start = np.zeros(len(names))
    start[0] = link(family, mean_outcome, outcome)  # the model without predictors, whose deviance is the null deviance
    found = minimise(evaluate, start, names)
    freedom = shared.count - len(names)
    dispersion = 2 * found.loss / freedom if family == "gaussian" else 1.0
    back = np.diag([1.0, *(1 / shared.scale)])  # from standardised terms to the columns as they are
    back[0, 1:] = -shared.mean / shared.scale
    covariance = back @ found.covariance @ back.T * dispersion
    return {
        "family": family,
        "coefficients": table(names, back @ found.coefficients, covariance),
        "covariance": covariance.tolist(),
        "rows": shared.count,
        "dropped": shared.dropped,
        "deviance": 2 * found.loss,
        "null_deviance": 2 * found.loss_at_start,
        "degrees_of_freedom": freedom,
        "dispersion": dispersion,
        "iterations": found.iterations,
    }


def link(family: str, mean: float, outcome: str) -> float:
    """The linear predictor of the model without predictors."""
    if family == "gaussian":
        return mean
    if not 0 < mean < (1 if family == "binomial" else math.inf):
        raise ValueError(f"column '{outcome}': {OUTCOMES[family]}")
    return math.log(mean / (1 - mean)) if family == "binomial" else math.log(mean)


@data(1)
def partial_glm(
    frame: pd.DataFrame,
    outcome: str,
    family: str,
    coefficients: list[float],
    predictors: list[str],
    levels: Levels,
    mean: list[float],
    scale: list[float],
) -> dict[str, Any]:
    """The loss (half of the deviance), its gradient and the information matrix at given coefficients."""
    x, y = standardised(frame, [outcome], predictors, levels, mean, scale)
    if (family == "binomial" and not np.isin(y, (0, 1)).all()) or (family == "poisson" and (y < 0).any()):
        raise ValueError(f"column '{outcome}': {OUTCOMES[family]}")
    x = np.column_stack([np.ones(len(x)), x])
    eta = x @ np.array(coefficients)
    mu, weight, deviance = at(family, eta, y)
    return {
        "loss": float(deviance.sum()) / 2,
        "gradient": (-(x.T @ (y - mu))).tolist(),
        "information": (x.T @ (weight[:, None] * x)).tolist(),
    }


def at(family: str, eta: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean, its derivative by the linear predictor, and the deviance, of each row."""
    if family == "gaussian":
        return eta, np.ones_like(eta), (y - eta) ** 2
    if family == "binomial":
        mu = np.exp(-np.logaddexp(0, -eta))
        return mu, mu * np.exp(-np.logaddexp(0, eta)), 2 * np.logaddexp(0, np.where(y > 0, -eta, eta))
    mu = np.exp(np.minimum(eta, 300))  # so a step that went much too far has a loss, and is halved
    y_log_y = y * np.log(np.where(y > 0, y, 1.0))
    return mu, mu, 2 * (y_log_y - y * eta - y + mu)
