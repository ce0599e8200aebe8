from typing import Any

from vantage6.algorithm.client import AlgorithmClient
from vantage6.algorithm.decorator.action import central
from vantage6.algorithm.decorator.algorithm_client import algorithm_client
from vantage6.algorithm.tools.util import info


@central
@algorithm_client
def central_average(client: AlgorithmClient, column_name: str) -> Any:
    """Compute the mean of a column over all organisations."""
    ids = [one.get("id") for one in client.organization.list()]
    task = client.task.create(
        method="partial_average", arguments={"column_name": column_name}, organizations=ids, name="average"
    )
    results = client.wait_for_results(task_id=task.get("id"))
    info(f"{len(results)} results")
    return {"average": sum(one["sum"] for one in results) / sum(one["count"] for one in results)}
