"""A generalised linear model (Poisson or binomial) by iteratively reweighted least squares, in version 5."""

import numpy as np
import pandas as pd
from vantage6.algorithm.client import AlgorithmClient
from vantage6.algorithm.data_extraction import read_csv
from vantage6.algorithm.decorator import algorithm_client, central, dataframe, federated, metadata
from vantage6.algorithm.decorator.metadata import RunMetaData
from vantage6.algorithm.tools.exceptions import ConvergenceError

__all__ = ["glm", "local_terms", "read_csv"]


@central
@algorithm_client
def glm(client: AlgorithmClient, outcome: str, predictors: list[str], family: str = "poisson") -> dict:
    """Fit the model over all organisations."""
    ids = [one["id"] for one in client.organization.list()]
    beta = np.zeros(len(predictors) + 1)
    for iteration in range(1, 26):
        task = client.task.create(
            "local_terms",
            {"outcome": outcome, "predictors": predictors, "family": family, "beta": beta.tolist()},
            ids,
            name=f"iteration {iteration}",
        )
        terms = client.wait_for_results(task["id"])
        left = sum(np.array(one["xwx"]) for one in terms)
        right = sum(np.array(one["xwz"]) for one in terms)
        new = np.linalg.solve(left, right)
        if np.max(np.abs(new - beta)) < 1e-10:
            names = ["intercept", *predictors]
            return {"beta": dict(zip(names, new.tolist(), strict=True)), "iterations": iteration}
        beta = new
    raise ConvergenceError("the model does not converge")


@federated
@metadata
@dataframe(1)
def local_terms(
    df: pd.DataFrame, meta: RunMetaData, outcome: str, predictors: list[str], family: str, beta: list[float]
) -> dict:
    """X'WX and X'Wz of the rows here."""
    x = np.column_stack([np.ones(len(df)), *(df[name].to_numpy(float) for name in predictors)])
    y = df[outcome].to_numpy(float)
    eta = x @ np.array(beta)
    mu = np.exp(eta) if family == "poisson" else 1 / (1 + np.exp(-eta))
    weight = mu if family == "poisson" else mu * (1 - mu)
    z = eta + (y - mu) / weight
    return {
        "organization": meta.organization_id,
        "xwx": (x.T @ (weight[:, None] * x)).tolist(),
        "xwz": (x.T @ (weight * z)).tolist(),
    }
