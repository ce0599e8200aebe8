import os
import signal
import time

from fedpkg.analytics.v4.decorators import algorithm_client, data


def _ids(client):
    return [one["id"] for one in client.organization.list()]


@data(1)
@algorithm_client
def mean(client, df, column: str, *, fail_at: str = ""):
    """The mean of a column over all organisations, and how many rows this one has.

    With ``fail_at``, the partial function of that organisation raises an error.
    """
    input_ = {"method": "moments", "kwargs": {"column": column}}
    if fail_at:
        input_ = {"method": "fails_at", "args": [fail_at, column]}
    task = client.task.create(input_=input_, organizations=_ids(client), name="ages")
    results = client.wait_for_results(task["id"])
    count = sum(one["count"] for one in results)
    return {"mean": sum(one["sum"] for one in results) / count, "rows": len(df), "answers": len(results)}


@algorithm_client
def polls(client, times: int = 1000):
    """Ask for a task in a loop, as public code does."""
    task = client.task.create(input_={"method": "moments", "kwargs": {"column": "age"}}, organizations=_ids(client))
    for _ in range(times):
        client.task.get(task["id"])
        time.sleep(1)
    return len(client.result.from_task(task["id"]))


@algorithm_client
def twice(client):
    """One organisation is named twice."""
    client.task.create(input_={"method": "moments"}, organizations=[1, 1])


@algorithm_client
def unknown(client):
    """A partial function that is not there."""
    task = client.task.create(input_={"method": "momens", "kwargs": {"column": "age"}}, organizations=_ids(client))
    return client.wait_for_results(task["id"])


@algorithm_client
def many(client, tasks: int):
    """One task after the other, each with its own round."""
    found = []
    for number in range(tasks):
        task = client.task.create(input_={"method": "moments", "kwargs": {"column": "age"}}, organizations=_ids(client))
        found.append(sum(one["sum"] for one in client.wait_for_results(task["id"])) + number)
    return found


@algorithm_client
def stubborn(client, tasks: int):
    """More tasks than one wants, which all run at once."""
    tasks = [
        client.task.create(input_={"method": "moments", "kwargs": {"column": "age"}}, organizations=[1])["id"]
        for _ in range(tasks)
    ]
    return [client.result.from_task(one)[0]["count"] for one in tasks]


@algorithm_client
def deep(client, levels: int):
    """A central function that runs itself as a task at the next organisation."""
    ids = _ids(client)
    if levels == 0:
        task = client.task.create(input_={"method": "moments", "kwargs": {"column": "age"}}, organizations=ids)
        return {"at": client.organization_id, "count": sum(one["count"] for one in client.wait_for_results(task["id"]))}
    next_id = ids[(ids.index(client.organization_id) + 1) % len(ids)]
    task = client.task.create(
        input_={"method": "deep", "kwargs": {"levels": levels - 1}}, organizations=[next_id], name="deep"
    )
    return {"at": client.organization_id, "inner": client.wait_for_results(task["id"])[0]}


@data(2)
def kinds(frame, folder):
    """The columns of a database, and the files in another one, which is a folder."""
    return [list(frame.columns), sorted(os.listdir(folder))]


@algorithm_client
def dies(client):
    """Is killed while it has files in its temporary folder."""
    with open(os.path.join(os.environ["TEMPORARY_FOLDER"], "notes"), "w") as file:
        file.write("notes")
    os.kill(os.getpid(), signal.SIGKILL)


@algorithm_client
def differs(client):
    """What depends on the process in which a partial function runs."""
    task = client.task.create(input_={"method": "process"}, organizations=_ids(client))
    return client.wait_for_results(task["id"])


@algorithm_client
def large(client, megabytes: int):
    """A result of many bytes."""
    return "x" * (megabytes << 20)


@algorithm_client
def order(client, words: list):
    """The order of a set of words, on which the inputs of public algorithms depend."""
    return list(set(words))


@data(1)
@algorithm_client
def spy(client, df, path: str):
    """Tries to read a file of another node, and to change its own data."""
    folder = os.environ["FEDN_DATA_PATH"]
    found = [len(df)]
    for name, mode in ((path, "r"), (os.path.join(folder, "default.csv"), "a")):
        try:
            with open(name, mode) as file:
                found.append(file.write("1,1\n") if mode == "a" else file.read())
        except OSError as error:
            found.append(type(error).__name__)
    return found
