"""Make a small home as this version of fedpkg writes it: python tests/homes/make.py tests/homes/rules-N

It writes rules-N.tar.gz, a home with sessions of two rounds, and rules-N.json, what the same version makes of them when
it resumes each one up to round 4. One session was killed in round 2, when two of its three clients had answered.

Homes of older versions are kept beside this file, so that tests can open and resume what users have on their disks. A
home is written once, by the last version with those rules (`fedpkg/rules.py`), and never again. Commit d2dc7d8 wrote
rules-1.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

FEDN_YAML = """
entry_points:
  build: {command: python main.py build}
  train: {command: python main.py train}
  validate: {command: python main.py validate}
"""
# The metrics do not hold num_examples, and the client with most training examples has the lowest accuracy. The model is
# a BatchNorm layer by positions: weight, bias, running_mean, running_var, num_batches_tracked.
MAIN = """
import json, os, sys, time
import numpy as np

what, *paths = sys.argv[1:]
if what == "build":
    dtype = os.environ["DTYPE"]
    np.savez(paths[0], **{str(i): np.full(4, v, dtype) for i, v in enumerate((1, 0, 0, 1))}, **{"4": np.array(0)})
    sys.exit()
with open(os.environ["FEDPKG_TASK"]) as file:
    task = json.load(file)
number = task["partition_id"]
with np.load(paths[0]) as file:
    model = dict(file)
if what == "train":
    while task["round_number"] == 2 and number == 2 and os.path.exists(os.environ["HANGS"]):
        time.sleep(0.01)
    grown = {name: value + value.dtype.type((number + 1) ** 2) for name, value in model.items()}
    np.savez(paths[1], **grown)
    with open(paths[1] + "-metadata", "w") as file:
        json.dump({"num_examples": 100 * (number + 1)}, file)
else:
    with open(paths[1], "w") as file:
        json.dump({"accuracy": 1.0 - 0.25 * number, "weight": float(model["0"][0])}, file)
"""
SESSIONS = {
    "mean": ["sampler.count=1"],  # in round 1, two of the validating clients have not trained yet
    "momentum": ["strategy.name=fedavgm", "strategy.momentum=0.9"],
    "half": ["strategy.name=fedavgm", "strategy.momentum=0.9", "environment.DTYPE=float16"],
    "trimmed": ["strategy.name=trimmed_mean", f"strategy.beta={1 / 3!r}"],
    "fedexp": ["strategy.name=fedexp"],
    "killed": ["strategy.name=fedavgm", "strategy.momentum=0.9"],
}


def fedpkg(home: Path, *words: str) -> str:
    return subprocess.run(_command(home, *words), check=True, stdout=subprocess.PIPE, text=True).stdout


def fedpkg_killed(home: Path, *words: str) -> None:
    """Kill it when two tasks of round 2 are on record."""
    process = subprocess.Popen(_command(home, *words))
    answered = "select count(*) from tasks where round_number = 2 and session_id like 'killed-%'"
    with sqlite3.connect(home / "state.db") as database:
        while database.execute(answered).fetchone()[0] < 2:
            time.sleep(0.01)
    process.kill()
    process.wait()


def _command(home: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "fedpkg", *words, "--home", str(home)]


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        package, home = Path(scratch, "client"), Path(scratch, "home")
        package.mkdir()
        (package / "fedn.yaml").write_text(FEDN_YAML)
        (package / "main.py").write_text(MAIN)
        for name, words in SESSIONS.items():
            hangs = Path(scratch, name)
            usual = ["--package", str(package), "--clients", "3", "--rounds", "2", "environment.DTYPE=float32"]
            command = ["run", *usual, f"environment.HANGS={hangs}", f"name={name}", *words]
            if name == "killed":
                hangs.touch()
                fedpkg_killed(home, *command)
                hangs.unlink()
            else:
                fedpkg(home, *command)
        with tarfile.open(target.with_suffix(".tar.gz"), "w:gz") as archive:
            archive.add(home, "home")
        resumed = {}
        for folder in sorted(os.listdir(home / "sessions")):
            fedpkg(home, "session", "resume", folder, "--rounds", "4")
            rounds = json.loads(fedpkg(home, "session", "show", folder, "--json"))["rounds"]
            models = json.loads(fedpkg(home, "model", "trail", f"{folder}.4", "--json"))
            digests = {row["round_number"]: row["digest"] for row in models}
            resumed[folder] = {"models": [digests[n] for n in range(5)], "metrics": [row["metrics"] for row in rounds]}
        target.with_suffix(".json").write_text(json.dumps(resumed, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
