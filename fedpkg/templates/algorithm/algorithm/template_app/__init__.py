"""The mean of a column over the tables of several organizations, which do not show their rows to each other."""

import pandas as pd
from vantage6.algorithm.tools.decorators import algorithm_client, data


@algorithm_client
def average(client, column: str) -> dict:
    """The central function: it asks each organization for a sum, and adds them up."""
    organizations = [one["id"] for one in client.organization.list()]
    input_ = {"method": "partial_sum", "kwargs": {"column": column}}
    task = client.task.create(input_=input_, organizations=organizations, name="sums")
    results = client.wait_for_results(task_id=task["id"])
    if len(results) < len(organizations):
        raise RuntimeError(f"only {len(results)} of {len(organizations)} organizations have a result")
    count = sum(one["count"] for one in results)
    if count == 0:
        raise ValueError(f"column '{column}' has no value at any organization")
    return {"mean": sum(one["sum"] for one in results) / count, "count": count}


@data(1)
def partial_sum(frame: pd.DataFrame, column: str) -> dict:
    """The partial function: it sees the rows of one organization. Only what it returns leaves that organization.

    Counts: count
    """
    if column not in frame.columns:
        raise ValueError(f"there is no column '{column}'; the columns are {', '.join(frame.columns)}")
    values = frame[column].dropna()
    return {"sum": float(values.sum()), "count": len(values)}
