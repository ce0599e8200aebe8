"""Make a small home as this version of fedpkg writes it: python tests/homes/make.py tests/homes/rules-N [KIND…]

It writes rules-N.tar.gz, a home with a session of each kind (or of the named kinds), and rules-N.json, the models and
metrics of the same configurations when nothing disturbs them. Each session of the home ended in its second of three
rounds, most of them by kill -9 while a client was at work and others had answered.

Homes of older versions are kept beside this file, so that tests can open and resume what users have on their disks. A
home is written once and never again. Commit d2dc7d8 wrote rules-1 (with this script as it was then), commit 4e90526
wrote rules-2, and commit 75f8d2c wrote the kinds personal and skewed of rules-4.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

FEDN_YAML = """
entry_points:
  build: {command: python main.py build}
  train: {command: python main.py train}
  validate: {command: python main.py validate}
  gradient: {command: python main.py gradient}
  prox: {command: python main.py prox}
"""
# The loss of client k is |y - k|^2 / 2 with y = (w, head). Numbers are summed element by element, so that all machines
# get the same bits. `HANGS` is a file: while it is there, the client of `HANG` waits (or fails, with `FAILS`).
MAIN = """
import json, math, os, sys, time
import numpy as np

what, *paths = sys.argv[1:]
if what == "build":
    np.savez(paths[0], w=np.arange(4, dtype="f4"), head=np.ones(2, "f4"), count=np.array(0))
    sys.exit()
with open(os.environ["FEDPKG_TASK"]) as file:
    task = json.load(file)
who, setting = task["partition_id"], os.environ
while setting["HANG"] == f"{what}@{who}@{task['round_number']}" and os.path.exists(setting["HANGS"]):
    if "FAILS" in setting:
        sys.exit(3)
    time.sleep(0.01)
while "FORGETS" in setting and who == 3 and task["round_number"] == 1:
    time.sleep(1)
with np.load(paths[0]) as file:
    given = dict(file)


def of(name):
    found = {key.split("/")[-1]: value for key, value in given.items() if key.startswith(f"{name}/")}
    return {key: value for key, value in found.items() if value.dtype == "f4"}


def gradient(y):
    return {name: value - np.float32(who + 1) for name, value in y.items()}


def step(y, by, c=0):
    return {name: value - np.float32(by) * (gradient(y)[name] + (c[name] if c else 0)) for name, value in y.items()}


def calls():
    path = "calls.txt"  # beside the code
    count = 1 + (int(open(path).read()) if os.path.exists(path) else 0)
    with open(path, "w") as file:
        file.write(str(count))
    return count


x = {name: value for name, value in given.items() if name in ("w", "head")} or of("x") or of("center")
loss = math.fsum(float(value) ** 2 for part in gradient(x).values() for value in part) / 2
if what == "validate":
    with open(paths[1], "w") as file:
        json.dump({"loss": loss, "accuracy": 1.0 - 0.25 * who}, file)
    sys.exit()
rest = {"count": np.array(task["round_number"] + who)}
if what == "gradient":
    reply = gradient(x)
elif what == "prox":
    theta, e = np.float32(task["parameters"]["theta"]), of("linear")
    reply = {name: (x[name] - theta * e[name] + theta * np.float32(who + 1)) / (1 + theta) for name in x} | rest
elif task["reply_sets"]:
    kept, c = os.path.join(setting["FEDPKG_STATE_DIR"], "c.npz"), of("c")
    own = dict(np.load(kept)) if os.path.exists(kept) else {name: np.zeros_like(c[name]) for name in c}
    y = step(x, 0.25, {name: c[name] - own[name] for name in c})
    after = {name: own[name] - c[name] + (x[name] - y[name]) * 4 for name in c}
    np.savez(kept, **after)
    reply = {f"x/{name}": value for name, value in (y | rest).items()}
    reply |= {f"dc/{name}": after[name] - own[name] for name in c}
else:
    reply = step(x, 0.5 / (calls() if "COUNTS" in setting else 1))
    reply = {name: reply[name] - x[name] for name in x} if task["reply"] == "delta" else reply | rest
examples = 100 * (who + 1)
if task["data_path"]:
    with np.load(task["data_path"]) as data:
        examples = len(data["y_train"])
np.savez(paths[1], **reply)
with open(paths[1] + "-metadata", "w") as file:
    json.dump({"num_examples": examples, "loss": loss}, file)
"""
STRATEGY = '''
"""A step that asks for gradients, then at once for changes of the model and for measurements."""

from fedpkg.strategies import register_strategy
from fedpkg.strategies.base import Request
from fedpkg.strategies.requests import gradient_at, mean_of, parameters_alone
from fedpkg.types import ReplyKind


@register_strategy("by_hand")
class ByHand:
    """Steps by gradients and changes; it remembers the losses."""

    entry_points = ("gradient", "train", "validate")

    def init(self, seed_model):
        return {"model": seed_model, "losses": []}

    def step(self, state, ctx):
        x = state["model"]
        replies = yield gradient_at(x)
        x = x - 0.25 * mean_of(replies, parameters_alone(x))
        changes, measured = yield [
            Request("changes", payload=x, reply="delta", required=1),
            Request(payload=x, clients=ctx.group("some"), entry_point="validate", reply_kind=ReplyKind.METRICS),
        ]
        losses = [reply.metrics["loss"] for reply in measured]
        x = x + 0.5 * float(ctx.rng.integers(1, 3)) * mean_of(changes, parameters_alone(x))
        return {"model": x, "losses": [*state["losses"], *losses]}
'''


@dataclass(frozen=True)
class Kind:
    """A session: its configuration, and how it ends in its second round.

    It is killed when ``answered`` tasks of that round are on record and client and entry point of ``hang`` hang.
    """

    config: dict[str, Any] = field(default_factory=dict)
    hang: str = "train@3@2"
    answered: int = 3
    ended_by: signal.Signals | None = signal.SIGKILL
    environment: dict[str, str] = field(default_factory=dict)


TOP_K = {"name": "top_k", "share": 0.5}
CLOCK = {"seconds": {"client-3": 2.0}, "spread": 0.25, "jitter": 0.0625}


def kinds(scratch: Path) -> dict[str, Kind]:
    groups = {"server": ["client-0"], "f": ["client-1"], "g": ["client-[23]"]}
    data = {"dataset": str(scratch / "data.npz")}
    return {
        "plain": Kind(),
        "validated": Kind(
            {
                "strategy": {"name": "fedavgm", "momentum": 0.5},
                "sampler": {"name": "power_of_choice", "count": 2, "held_out": ["client-2"]},
                "validation": {"every": 1},
            },
            "validate@3@2",
            5,
        ),
        "requests": Kind(
            {"strategy": {"name": "vrcs", "theta": 0.5, "p": 0.5, "q": 0.5}, "clients": {"count": 4, "groups": groups}},
            "prox@0@2",
            7,
        ),
        "sets": Kind({"strategy": {"name": "scaffold"}}),
        "feedback": Kind(
            {
                "strategy": {
                    "name": "fedavg",
                    "transforms": [TOP_K, {"name": "quantise", "bits": 8}],
                    "download_transforms": ["bfloat16"],
                }
            }
        ),
        "delta": Kind(
            {"strategy": {"name": "fedavgm", "momentum": 0.5, "reply": "delta"}, "round": {"weighting": "equal"}}
        ),
        "private": Kind(
            {
                "strategy": {"name": "dp_fedavg", "noise_multiplier": 0.5, "clip_norm": 64.0},
                "sampler": {"name": "poisson", "fraction_train": 0.75},
            }
        ),
        "over": Kind(
            {"clock": CLOCK, "sampler": {"name": "uniform", "count": 2, "over_selection": 0.5}}, "train@2@2", 1
        ),
        "buffered": Kind(
            {"clock": CLOCK, "strategy": {"name": "fedbuff", "buffer": 3, "concurrency": 3}}, "train@1@2", 2
        ),
        "asynchronous": Kind({"clock": CLOCK, "strategy": {"name": "fedasync", "concurrency": 3}}, "train@2@2", 0),
        "own": Kind(
            {
                "strategy": {"name": "by_hand", "file": str(scratch / "own.py")},
                "clients": {"count": 4, "groups": {"some": ["client-[12]"]}},
            },
            answered=9,
        ),
        "personal": Kind(
            {
                "strategy": {"name": "fedper", "local": ["head"]},
                "clients": {"count": 4, "data": data},
                "keep": {"updates": True},
            },
            environment={"COUNTS": "1"},
        ),
        "skewed": Kind(
            {"clients": {"count": 4, "data": {**data, "partition": {"name": "dirichlet", "alpha": 1.0}}}},
        ),
        "history": Kind({"sampler": {"name": "importance", "count": 3, "metric": "loss"}}, answered=2),
        "isolated": Kind({"isolate": {"enabled": True, "read": [str(scratch / "hangs")]}}),
        "timeout": Kind({"round": {"timeout_s": 20.0}}, environment={"FORGETS": "1"}),
        "failed": Kind({"round": {"required": 4}}, ended_by=None, environment={"FAILS": "1"}),
        "interrupted": Kind(ended_by=signal.SIGINT),
        "finished": Kind({"validation": {"every": 1}, "keep": {"models": "last 1"}}, hang="", ended_by=None),
    }


def fedpkg(home: Path, *words: str) -> str:
    command = [sys.executable, "-m", "fedpkg", *words, "--home", str(home)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def write_run(scratch: Path, name: str, kind: Kind, *, rounds: int) -> Path:
    environment = {"HANG": kind.hang, "HANGS": str(scratch / "hangs" / name), **kind.environment}
    usual = {"package": str(scratch / "client"), "name": name, "rounds": rounds, "clients": {"count": 4}}
    usual |= {"validation": {"every": 0}, "executor": {"workers": 2}, "environment": environment}
    path = scratch / f"{name}.yaml"
    path.write_text(json.dumps({**usual, **kind.config}))
    return path


def run_and_end(home: Path, path: Path, name: str, kind: Kind) -> None:
    """Run a session until it ends as its kind says."""
    command = [sys.executable, "-m", "fedpkg", "run", str(path), "--home", str(home)]
    process = subprocess.Popen(command)
    while kind.ended_by is not None and (found := answered(home, name)) < kind.answered:
        assert process.poll() is None, f"{name}: only {found} tasks of round 2 are on record"
        time.sleep(0.01)
    if kind.ended_by is not None:
        process.send_signal(kind.ended_by)
    process.wait()
    assert kind.ended_by is None or kind.answered <= answered(home, name) <= kind.answered + 1, name


def answered(home: Path, name: str) -> int:
    """How many tasks of a session's second round are on record; -1 before it begins."""
    if not (home / "state.db").exists():
        return -1
    of_round = f"where round_number = 2 and session_id like '{name}-%'"
    database = sqlite3.connect(f"file:{home}/state.db?mode=ro", uri=True)
    with contextlib.closing(database), contextlib.suppress(sqlite3.OperationalError):  # its tables are being made
        if database.execute(f"select 1 from rounds {of_round}").fetchone():
            return int(database.execute(f"select count(*) from tasks {of_round}").fetchone()[0])
    return -1


def outcome(home: Path, name: str) -> dict[str, Any]:
    sessions = json.loads(fedpkg(home, "session", "list", "--json"))
    (session_id,) = (row["session_id"] for row in sessions if row["name"] == name)
    rounds = json.loads(fedpkg(home, "session", "show", session_id, "--json"))["rounds"]
    models = json.loads(fedpkg(home, "model", "trail", session_id, "--json"))
    digests = {row["round_number"]: row["digest"] for row in models}
    return {"models": [digests[n] for n in range(4)], "metrics": [row["metrics"] for row in rounds]}


def main(target: Path, *chosen: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        home, calm, package, hangs = (scratch / name for name in ("home", "calm", "client", "hangs"))
        package.mkdir()
        hangs.mkdir()
        (package / "fedn.yaml").write_text(FEDN_YAML)
        (package / "main.py").write_text(MAIN)
        (scratch / "own.py").write_text(STRATEGY)
        rows = np.arange(24.0, dtype="f4").reshape(12, 2)
        np.savez(scratch / "data.npz", x_train=rows, y_train=np.arange(12) % 3, x_test=rows, y_test=np.arange(12) % 3)
        found = {}
        for name, kind in kinds(scratch).items():
            if chosen and name not in chosen:
                continue
            fedpkg(calm, "run", str(write_run(scratch, name, kind, rounds=3)))
            found[name] = outcome(calm, name)
            (hangs / name).touch()
            path = write_run(scratch, name, kind, rounds=2 if kind.hang == "" else 3)
            run_and_end(home, path, name, kind)
            (hangs / name).unlink()
        with tarfile.open(target.with_suffix(".tar.gz"), "w:gz") as archive:
            archive.add(home, "home")
            archive.add(scratch / "own.py", "own.py")
            archive.add(hangs, "hangs")
        sessions = json.loads(fedpkg(home, "session", "list", "--json"))
        status = {row["name"]: row["status"] for row in sessions}
        told = {"folder": str(scratch), "status": status, "outcomes": found}
        target.with_suffix(".json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
