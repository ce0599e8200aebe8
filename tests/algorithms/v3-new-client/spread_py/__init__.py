"""The variance of a column in two steps, with the client of use_new_client=True."""

import time

from vantage6.client.algorithm_client import AlgorithmClient
from vantage6.tools.util import info


def collect(client: AlgorithmClient, input_, ids):
    task = client.task.create(input_=input_, organization_ids=ids, name="step", description=input_["method"])
    while client.task.get(task["id"])["complete"] is not True:
        info(f"waiting for task {task['id']}")
        time.sleep(1)
    return client.result.get(task_id=task["id"])


def variance(client: AlgorithmClient, data, column):
    organizations = client.organization.list()
    ids = [one["id"] for one in organizations]
    sums = collect(client, {"method": "sums", "kwargs": {"column": column}}, ids)
    count = sum(one["n"] for one in sums)
    mean = sum(one["sum"] for one in sums) / count
    squares = collect(client, {"method": "squares", "kwargs": {"column": column, "mean": mean}}, ids)
    return {
        "variance": sum(squares) / (count - 1),
        "largest": max(zip([one["sum"] for one in sums], [one["name"] for one in organizations], strict=True))[1],
        "asked_by": client.organization.get(client.organization_id)["name"],
    }


def RPC_sums(data, column):
    return {"sum": data[column].sum(), "n": len(data)}


def RPC_squares(data, column, mean):
    return ((data[column] - mean) ** 2).sum()
