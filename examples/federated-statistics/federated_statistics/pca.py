"""Principal components from the covariance matrix, which is a sum over organizations."""

from __future__ import annotations

from typing import Any

import numpy as np
from vantage6.algorithm.tools.decorators import algorithm_client

from .asking import ask
from .columns import check_names
from .moments import agreed_design


@algorithm_client
def pca(
    client: Any,
    columns: list[str],
    components: int | None = None,
    standardise: bool = False,
    organizations: list[int] | None = None,
) -> dict[str, Any]:
    """Principal components of numeric columns, over rows in which nothing is missing.

    With ``standardise``, of the correlation matrix. The largest loading of each component is positive.
    """
    check_names(columns, "columns")
    if components is not None and not 1 <= components <= len(columns):
        raise ValueError(f"components is between 1 and the number of columns ({len(columns)}), not {components}")
    shared = agreed_design(client, columns, [], [], organizations)
    if shared.levels:
        raise ValueError(f"column '{next(iter(shared.levels))}' is not numeric")
    if shared.count < 2:
        raise ValueError("one complete row has no covariance")
    asked = {"columns": list(columns), "mean": shared.mean.tolist()}
    told = ask(client, "partial_cross_products", organizations, **asked)
    covariance = np.sum([np.array(one) for one in told], axis=0) / (shared.count - 1)
    if standardise:
        deviation = np.sqrt(np.diag(covariance))
        covariance = covariance / np.outer(deviation, deviation)
    values, vectors = np.linalg.eigh(covariance)
    order = np.argsort(values)[::-1][:components]
    loadings = vectors[:, order].T
    loadings = loadings * np.sign(loadings[np.arange(len(order)), np.abs(loadings).argmax(axis=1)])[:, None]
    variances = values[order].clip(min=0)
    return {
        "columns": list(columns),
        "mean": shared.mean.tolist(),
        "components": loadings.tolist(),
        "explained_variance": variances.tolist(),
        "explained_variance_ratio": (variances / np.trace(covariance)).tolist(),
        "rows": shared.count,
        "dropped": shared.dropped,
    }
