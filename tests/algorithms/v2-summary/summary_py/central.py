import time

from vantage6.tools.util import info, warn


def master(client, data, columns):
    """Summarise columns of all organisations.

    columns: {name: "numeric" | "category"}
    """
    organizations = client.request(f"collaboration/{client.collaboration_id}/organization")
    ids = [one.get("id") for one in organizations]
    task = client.create_new_task({"method": "summary", "args": [], "kwargs": {"columns": columns}}, ids)

    task_id = task.get("id")
    task = client.request(f"task/{task_id}")
    while not task.get("complete"):
        task = client.request(f"task/{task_id}")
        info("waiting for results")
        time.sleep(1)

    results = client.get_results(task_id=task.get("id"))
    if not all(one["column_names_correct"] for one in results):
        warn("some organisations have other columns")
        return None

    summary = {"number_of_rows": sum(one["number_of_rows"] for one in results)}
    for name, kind in columns.items():
        parts = [one["statistics"][name] for one in results]
        if kind == "category":
            keys = sorted({key for part in parts for key in part})
            summary[name] = {key: sum(part.get(key, 0) for part in parts) for key in keys}
            continue
        n = sum(part["n"] for part in parts)
        mean = sum(part["sum"] for part in parts) / n
        squares = sum(part["squares"] + part["n"] * (part["mean"] - mean) ** 2 for part in parts)
        summary[name] = {
            "min": min(part["min"] for part in parts),
            "max": max(part["max"] for part in parts),
            "missing": sum(part["missing"] for part in parts),
            "mean": mean,
            "std": (squares / (n - 1)) ** 0.5,
        }
    return summary
