"""Mean, variance, minimum and maximum of columns, in two rounds; too few rows are refused."""

from collections.abc import Sequence

import pandas as pd
from vantage6.algorithm.client import AlgorithmClient
from vantage6.algorithm.tools.decorators import algorithm_client, data
from vantage6.algorithm.tools.exceptions import PrivacyThresholdViolation
from vantage6.algorithm.tools.util import get_env_var, info

DEFAULT_MINIMUM_ROWS = 2


@algorithm_client
def summary(client: AlgorithmClient, columns: Sequence[str], organizations_to_include: list[int] | None = None) -> dict:
    """Summarise columns over all organisations."""
    if organizations_to_include is None:
        organizations_to_include = [one.get("id") for one in client.organization.list()]
    sums = ask(client, organizations_to_include, "summary_per_organization", columns=list(columns))
    count = {column: sum(one[column]["count"] for one in sums) for column in columns}
    mean = {column: sum(one[column]["sum"] for one in sums) / count[column] for column in columns}
    squares = ask(client, organizations_to_include, "variance_per_organization", columns=list(columns), means=mean)
    info("combining")
    return {
        column: {
            "count": count[column],
            "mean": mean[column],
            "variance": sum(one[column] for one in squares) / (count[column] - 1),
            "min": min(one[column]["min"] for one in sums),
            "max": max(one[column]["max"] for one in sums),
        }
        for column in columns
    }


def ask(client: AlgorithmClient, organizations: list[int], method: str, **kwargs: object) -> list[dict]:
    task = client.task.create(
        input_={"method": method, "kwargs": kwargs},
        organizations=organizations,
        name=method,
        description="a part of the summary",
    )
    return client.wait_for_results(task_id=task.get("id"), interval=10)


@data(1)
def summary_per_organization(df: pd.DataFrame, columns: list[str]) -> dict:
    """Sum, count and bounds of each column."""
    minimum = get_env_var("SUMMARY_MINIMUM_ROWS", default=DEFAULT_MINIMUM_ROWS, as_type="int")
    if len(df) < minimum:
        raise PrivacyThresholdViolation(f"there are fewer than {minimum} rows")
    return {
        column: {
            "sum": float(df[column].sum()),
            "count": int(df[column].count()),
            "min": float(df[column].min()),
            "max": float(df[column].max()),
        }
        for column in columns
    }


@data(1)
def variance_per_organization(df: pd.DataFrame, columns: list[str], means: dict[str, float]) -> dict:
    """The sum of squared deviations from the means of all organisations."""
    return {column: float(((df[column] - means[column]) ** 2).sum()) for column in columns}
