"""A client whose update depends on everything that must be repeatable. NumPy only.

python entrypoint.py build OUT
python entrypoint.py train    IN OUT [--fails=WORDS] [--order=JSON --arrivals=FOLDER] [--up-to=SECONDS] [--gate=WORDS]
python entrypoint.py validate IN OUT

The update depends on the input, on draws that are never seeded here, on who the client is, and on how often it was
called (which it keeps beside its code). Clients have different numbers of examples. WORDS are like
"client-1@2,client-3@1": who fails in which round, after having changed its state. With ``--order``, lists of clients
by round, a client ends when a file says that the one before it in its round has arrived (FOLDER/<round>-<client>).
With ``--up-to`` a task takes a time that no seed repeats. Clients that ``--gate`` names like WORDS do not end before
there is a file FOLDER/open.
"""

import json
import os
import random
import sys
import time
from pathlib import Path

import numpy as np


def option(words, name, default):
    return next((word.partition("=")[2] for word in words if word.startswith(f"--{name}=")), default)


def await_turn(order, folder, task):
    clients = json.loads(order).get(str(task["round_number"]), [])
    if task["client_id"] in clients[1:]:
        before = clients[clients.index(task["client_id"]) - 1]
        deadline = time.monotonic() + 60
        while not os.path.exists(f"{folder}/{task['round_number']}-{before}"):
            if time.monotonic() > deadline:
                sys.exit(f"{before} never came")
            time.sleep(0.002)


def await_gate(words, folder, task):
    if f"{task['client_id']}@{task['round_number']}" in words.split(","):
        deadline = time.monotonic() + 60
        while not os.path.exists(f"{folder}/open"):
            if time.monotonic() > deadline:
                sys.exit("the gate was never opened")
            time.sleep(0.002)


def main():
    command, *words = sys.argv[1:]
    paths = [word for word in words if not word.startswith("--")]
    if command == "build":
        np.savez(paths[0], w=np.random.standard_normal((7, 3)).astype(np.float32), steps=np.array(0))
        return
    task = json.loads(Path(os.environ["FEDPKG_TASK"]).read_text())
    with np.load(paths[0]) as arrays:
        w, steps = arrays["w"], arrays["steps"]
    calls = Path("calls.txt")
    count = int(calls.read_text()) + 1 if calls.exists() else 1
    calls.write_text(str(count))
    who = task["partition_id"]
    if command == "validate":
        Path(paths[1]).write_text(json.dumps({"mean": float(w.mean()) + random.random(), "num_examples": 1 + who}))
        return
    await_turn(option(words, "order", "{}"), option(words, "arrivals", ""), task)
    await_gate(option(words, "gate", ""), option(words, "arrivals", ""), task)
    time.sleep(float(option(words, "up-to", "0")) * int.from_bytes(os.urandom(2), "big") / 65536)
    fails = option(words, "fails", "")
    if f"{task['client_id']}@{task['round_number']}" in fails.split(","):
        sys.exit(3)
    update = 0.9 * w + np.random.standard_normal(w.shape) + random.random() + 0.1 * count + who
    np.savez(paths[1], w=update.astype(np.float32), steps=steps + count)
    Path(f"{paths[1]}-metadata").write_text(json.dumps({"num_examples": 3 + 5 * who, "calls": count}))


if __name__ == "__main__":
    main()
