"""A client with the loss f_i(x) = x'A_i x / 2 - b_i'x in float64. NumPy only; A_i, b_i follow from who it is.

python entrypoint.py build    OUT
python entrypoint.py gradient IN OUT     at the model; of several sets, at each of them
python entrypoint.py prox     IN OUT     argmin_y <linear, y> + |y - center|^2 / (2 theta) + f_i(y)
python entrypoint.py train    IN OUT     gradient steps, or those of SCAFFOLD or Mime where it gets their sets;
                                         --steps=5 --lr=0.05
python entrypoint.py validate IN OUT

All take --drifts=true (what is sent also depends on draws that are not seeded here, and on how often the client was
called, which it keeps beside its code) and --fails=WORDS, like "client-1@2,client-3@1": who fails in which round, when
called for the second time in it, after having changed its state. So does QUADRATIC_FAILS in the environment.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np

SIZE = 6


def problem(who, part=""):
    """A and b; of the first client, which has data of two kinds, also those of a part: together they are its whole."""
    if who == 0 and part == "":
        (a, b), (c, d) = problem(0, "f"), problem(0, "g")
        return a + c, b + d
    rng = np.random.default_rng(1000 + who + (ord(part) if who == 0 else 0))
    root = rng.standard_normal((SIZE, SIZE))
    return np.eye(SIZE) + 0.1 * root @ root.T, rng.standard_normal(SIZE)


def gradient(who, x, part=""):
    a, b = problem(who, part)
    return a @ x - b


def prox(who, center, linear, theta):
    a, b = problem(who)
    return np.linalg.solve(a + np.eye(SIZE) / theta, b + center / theta - linear)


def train(who, x, steps, lr, c=0.0, m=0.0, beta=0.0):
    for _ in range(steps):
        x = x - lr * ((1 - beta) * (gradient(who, x) + c) + beta * m)
    return x


def scaffold(who, x, c, steps, lr):
    kept = Path(os.environ["FEDPKG_STATE_DIR"], "c.npy")
    own = np.load(kept) if kept.exists() else np.zeros(SIZE)
    y = train(who, x, steps, lr, c=c - own)
    after = own - c + (x - y) / (steps * lr)
    np.save(kept, after)
    return y, after - own


def main():
    command, *words = sys.argv[1:]
    paths = [word for word in words if not word.startswith("--")]
    options = dict(word[2:].partition("=")[::2] for word in words if word.startswith("--"))
    if command == "build":
        np.savez(paths[0], x=np.random.standard_normal(SIZE), calls=np.array(0))
        return
    task = json.loads(Path(os.environ["FEDPKG_TASK"]).read_text())
    who, parameters = task["partition_id"], task["parameters"]
    with np.load(paths[0]) as arrays:
        given = dict(arrays)
    point = given.get("x", given.get("x/x", given.get("center/x")))
    noise = 0.0
    if options.get("drifts"):
        kept = Path("calls.json")
        calls = json.loads(kept.read_text()) if kept.exists() else []
        calls.append(task["round_number"])
        kept.write_text(json.dumps(calls))
        noise = 0.01 * np.random.standard_normal(SIZE) + 0.001 * len(calls)
        fails = options.get("fails", "") + "," + os.environ.get("QUADRATIC_FAILS", "")
        failing = f"{task['client_id']}@{task['round_number']}" in fails.split(",")
        if failing and calls.count(task["round_number"]) > 1:
            sys.exit(3)
    examples = {"num_examples": 3 + 5 * who}
    if command == "validate":
        a, b = problem(who)
        Path(paths[1]).write_text(json.dumps({"loss": point @ a @ point / 2 - b @ point + np.sum(noise), **examples}))
        return
    part, steps, lr = parameters.get("part", ""), int(options.get("steps", 5)), float(options.get("lr", 0.05))
    if command == "gradient" and task["input_sets"]:
        reply = {f"{name}/x": gradient(who, given[f"{name}/x"], part) + noise for name in task["input_sets"]}
    elif command == "gradient":
        reply = {"x": gradient(who, point, part) + noise}
    elif command == "prox":
        reply = {"x": prox(who, point, given["linear/x"], parameters["theta"]), "calls": np.array(1)}
    elif task["reply_sets"] == ["x", "dc"]:
        y, dc = scaffold(who, point, given["c/x"], steps, lr)
        reply = {"x/x": y + noise, "x/calls": np.array(1), "dc/x": dc}
    else:
        c = given["c/x"] - gradient(who, point) if "c/x" in given else 0.0
        beta = parameters.get("momentum", 0.0)
        after = train(who, point, steps, lr, c, given.get("m/x", 0.0), beta) + noise
        reply = {"x": after, "calls": np.array(1)}
        if task["reply"] == "delta":
            reply = {"x": after - point}
    np.savez(paths[1], **reply)
    Path(f"{paths[1]}-metadata").write_text(json.dumps(examples))


if __name__ == "__main__":
    main()
