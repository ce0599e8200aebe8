"""A central function that starts central functions: one for each pair of organisations, which ask these two."""

import time

from vantage6.tools.util import info


def wait(client, task):
    while not task.get("complete"):
        info("waiting")
        time.sleep(1)
        task = client.get_task(task["id"])
    return client.get_results(task_id=task["id"])


def master(client, data, column):
    """The largest mean of the regions, each of which is two organisations."""
    ids = [one["id"] for one in client.get_organizations_in_my_collaboration()]
    tasks = []
    for first in range(0, len(ids), 2):
        region = ids[first : first + 2]
        input_ = {"master": 1, "method": "region", "args": [region], "kwargs": {"column": column}}
        tasks.append(client.create_new_task(input_, organization_ids=region[:1]))
    means = {}
    for task in tasks:
        [(region, mean)] = wait(client, task)
        means[region] = mean
    return max(means.items(), key=lambda one: one[1])


def region(client, data, ids, column):
    """The mean of the organisations of a region."""
    results = wait(client, client.create_new_task({"method": "moments", "args": [column]}, ids))
    return tuple(ids), sum(one[0] for one in results) / sum(one[1] for one in results)


def RPC_moments(data, column):
    return data[column].sum(), len(data)
