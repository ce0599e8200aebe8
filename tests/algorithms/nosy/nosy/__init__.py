"""Partial functions that try to get round the policy of their node."""

import os
import re
import signal
import sys
import threading
import time

from vantage6.algorithm.client import AlgorithmClient
from vantage6.algorithm.tools.decorators import algorithm_client, data

_HIDDEN = re.compile(rb"Patient-\d{4}")  # the values of the hidden column


@algorithm_client
def central(client: AlgorithmClient, method: str, arguments: dict, number: int):
    """Call a partial function at the first organisations; how each call ended."""
    ids = [one["id"] for one in client.organization.list()][:number]
    task = client.task.create(input_={"method": method, "kwargs": arguments}, organizations=ids)
    results = client.wait_for_results(task_id=task["id"])
    return {"results": results, "statuses": [run["status"] for run in client.run.from_task(task_id=task["id"])]}


@data(1)
@algorithm_client
def own_columns(client: AlgorithmClient, df):
    """A central function that looks at the data of its host."""
    return list(df.columns)


@data(1)
@algorithm_client
def own_failure(client: AlgorithmClient, df):
    """A central function that prints and raises data of its host."""
    print(f"the first patient is {df['name'][0]}")
    raise ValueError(f"the first patient is {df['name'][0]}")


@algorithm_client
def own_memory(client: AlgorithmClient, megabytes: int):
    """A central function that holds so much memory until it is ended."""
    filled = bytearray(os.urandom(1 << 20) * megabytes)
    threading.Event().wait()
    return len(filled)


@data(1)
def look_around(df, original: str):
    """What is found of the hidden column, by each way."""
    ways = {
        "columns": lambda: list(df.columns),
        "regex": lambda: list(df.filter(regex="(?i)name").columns),
        "index": lambda: df.iloc[:, 2].tolist(),
        "eval": lambda: eval("df['name']", {"df": df}).tolist(),
        "query": lambda: len(df.query("name == name")),
        "behind": lambda: max(getattr(block.values.base, "size", 0) for block in df._mgr.blocks) / len(df),
        "files": _in_files,
        "original": lambda: len(_read(original)),
        "memory": lambda: _in_memory("self"),
        "memory of the runner": lambda: _in_memory(os.getppid()),
        "environment of the runner": lambda: len(_read(f"/proc/{os.getppid()}/environ")),
    }
    found = {}
    for name, way in ways.items():
        try:
            found[name] = way()
        except Exception as error:
            found[name] = type(error).__name__
    return found


def _in_files():
    folder = os.environ["FEDN_DATA_PATH"]
    return [len(_HIDDEN.findall(_read(os.path.join(folder, name)))) for name in sorted(os.listdir(folder))]


def _read(path):
    with open(path, "rb") as file:
        return file.read()


def _in_memory(pid):
    number = 0
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            start, end = (int(one, 16) for one in line.split()[0].split("-"))
            if line.split()[1].startswith("rw"):
                try:
                    memory.seek(start)
                    number += len(_HIDDEN.findall(memory.read(end - start)))
                except (OSError, OverflowError, ValueError):
                    pass
    return number


@data(1)
def forge(df):
    """Puts another reply in the place of its own, also from a process that outlives it."""
    out = sys.argv[-1]
    ready, say = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(say, b"1")
            while True:
                with open(out, "w") as file:
                    file.write("forged")
        os._exit(0)
    os.read(ready, 1)
    with open(out + "-metadata", "w") as file:
        file.write('{"num_examples": 1000000}')
    return "true"


@data(1)
def tamper(df):
    """Counts patients, with the checks of its own process replaced.

    Counts: n, by stage
    """
    from fedpkg.analytics import guard, policy

    policy.Policy.released = lambda self, result, counts: result
    guard.released_result = lambda policy, node, method, result: result
    return {"n": len(df), "by stage": df["stage"].value_counts().to_dict()}


@data(1)
def fail(df):
    raise ValueError(f"the first patient is {df['age'][0]} years old")


@data(1)
def rows_but(df, rows: int):
    """The number of rows, but not where it is this one."""
    if len(df) == rows:
        raise ValueError("not here")
    return len(df)


@data(1)
def total_age(df):
    return int(df["age"].sum())


@data(1)
def fills_memory(df, megabytes: int):
    """Holds so much memory until it is ended."""
    filled = bytearray(os.urandom(1 << 20) * megabytes)
    while filled:
        time.sleep(60)


@data(1)
def never_ends(df):
    while True:
        time.sleep(60)
