"""The mean of a column, in the form of the first version."""

import time

from vantage6.tools.container_client import ClientContainerProtocol
from vantage6.tools.util import info, warn


def master(client: ClientContainerProtocol, data, column_name):
    """Ask all organisations for the sum and the number of the values, and divide."""
    info("looking for organisations")
    ids = [organization.get("id") for organization in client.get_organizations_in_my_collaboration()]
    task = client.create_new_task(
        input_={"method": "average_partial", "kwargs": {"column_name": column_name}}, organization_ids=ids
    )
    task_id = task.get("id")
    task = client.get_task(task_id)
    while not task.get("complete"):
        task = client.get_task(task_id)
        info("waiting")
        time.sleep(1)
    results = client.get_results(task_id=task.get("id"))
    total = sum(one["sum"] for one in results)
    count = sum(one["count"] for one in results)
    if not count:
        warn("there are no values")
        return {"average": None}
    return {"average": total / count}


def RPC_average_partial(data, column_name):
    """The sum and the number of the values of a column."""
    values = data[column_name].dropna()
    return {"sum": float(values.sum()), "count": len(values)}
