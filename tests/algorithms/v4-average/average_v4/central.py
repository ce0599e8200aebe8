from typing import Any

from vantage6.algorithm.client import AlgorithmClient
from vantage6.algorithm.tools.decorators import algorithm_client
from vantage6.algorithm.tools.util import error, info


@algorithm_client
def central_average(client: AlgorithmClient, column_name: str, org_ids: list[int] | None = None) -> Any:
    """Compute the mean of a column over all organisations."""
    if not org_ids:
        org_ids = [one["id"] for one in client.organization.list()]
    info(f"asking {len(org_ids)} organisations")
    input_ = {"method": "partial_average", "kwargs": {"column_name": column_name}}
    task = client.task.create(input_, org_ids, name="average", description="sum and count")
    results = client.wait_for_results(task_id=task.get("id"))
    if not results:
        error("no organisation has answered")
        return None
    total = sum(one["sum"] for one in results)
    count = sum(one["count"] for one in results)
    return {"average": total / count, "organizations": len(results)}
