"""What public algorithms do besides statistics: metadata, loops that wait, nested tasks, and failures."""

import base64
import json
import time
from typing import Any

import pandas as pd
from vantage6.algorithm.client import AlgorithmClient
from vantage6.algorithm.tools.decorators import RunMetaData, algorithm_client, data, metadata
from vantage6.algorithm.tools.exceptions import DataError
from vantage6.algorithm.tools.util import info


@algorithm_client
def who(client: AlgorithmClient) -> list[dict]:
    """What each organisation knows of itself, and its name."""
    names = {one["id"]: one["name"] for one in client.organization.list()}
    task = client.task.create({"method": "partial_who"}, list(names))
    found = client.wait_for_results(task["id"])
    return [{**one, "name": names[one["organization"]]} for one in found]


@data(1)
@metadata
def partial_who(meta: RunMetaData, df: pd.DataFrame) -> dict:
    files = [meta.temporary_directory, meta.input_file, meta.output_file, meta.token_file]
    return {
        "organization": meta.organization_id,
        "is_node": meta.node_id is not None,
        "collaboration": meta.collaboration_id,
        "rows": len(df),
        "files": [one is not None for one in files],
        "token": [_identity(meta)[name] == getattr(meta, name) for name in ("task_id", "node_id", "organization_id")],
    }


def _identity(meta: RunMetaData) -> dict:
    content = meta.token_file.read_text().split(".")[1]
    return json.loads(base64.urlsafe_b64decode(content + "=="))["sub"]


@algorithm_client
def polled(client: AlgorithmClient) -> Any:
    """Wait for two tasks in loops, as public algorithms do."""
    ids = [one["id"] for one in client.organization.list()]
    tasks = [client.task.create({"method": "rows"}, ids, name=f"rows {number}") for number in range(2)]
    for task in tasks:
        while client.task.get(task["id"])["status"] not in ("completed", "failed"):
            info("waiting")
            time.sleep(60)
    return [client.result.from_task(task["id"]) for task in tasks]


@data(1)
def rows(df: pd.DataFrame) -> int:
    return len(df)


@algorithm_client
def survey(client: AlgorithmClient) -> dict:
    """Ask for rows where one organisation fails, and say what came of it."""
    ids = [one["id"] for one in client.organization.list()]
    task = client.task.create({"method": "rows_of_many", "kwargs": {"least": 3}}, ids)
    results = client.wait_for_results(task["id"])
    runs = client.run.from_task(task["id"])
    return {
        "results": results,
        "status": client.task.get(task["id"])["status"],
        "runs": {str(one["organization"]["id"]): one["status"] for one in runs},
        "reasons": [one["log"] for one in runs if one["log"]],
    }


@data(1)
def rows_of_many(df: pd.DataFrame, least: int) -> int:
    if len(df) < least:
        raise DataError(f"{len(df)} rows are fewer than {least}")
    return len(df)


@algorithm_client
def nested(client: AlgorithmClient) -> Any:
    """Let the last organisation run a central function."""
    ids = [one["id"] for one in client.organization.list()]
    task = client.task.create({"method": "total_rows", "kwargs": {"ids": ids}}, ids[-1:])
    return client.wait_for_results(task["id"])[0]


@algorithm_client
def total_rows(client: AlgorithmClient, ids: list[int]) -> dict:
    task = client.task.create({"method": "rows"}, ids)
    return {"rows": sum(client.wait_for_results(task["id"])), "asked_by": client.organization_id}


@algorithm_client
def sends_numbers(client: AlgorithmClient) -> Any:
    """Ask for a result that JSON lacks."""
    ids = [one["id"] for one in client.organization.list()]
    task = client.task.create({"method": "means"}, ids)
    return client.wait_for_results(task["id"])


@data(1)
def means(df: pd.DataFrame) -> dict:
    return {"mean": df["age"].sum(), "rows": len(df)}


@algorithm_client
def round_trip(client: AlgorithmClient) -> Any:
    """What JSON makes of keys and tuples, on the way there and back."""
    ids = [one["id"] for one in client.organization.list()]
    task = client.task.create({"method": "echo", "args": [{1: (2, 3)}]}, ids[:1])
    return client.wait_for_results(task["id"])[0]


def echo(value: Any) -> Any:
    return {"value": value, 4: (5, None)}
