"""Packages of a few lines, data for two clients, and runs of them, for the tests of what packages find."""

import json
import textwrap

import numpy as np
import pytest
from cli_support import fedpkg

from fedpkg.means import means

TRAIN = """
import json, os, sys
from os.path import abspath, dirname, join
from pathlib import Path
import numpy as np

def save(numbers, out):
    np.savez(out, **{"0": np.asarray(numbers, np.float32)})
    json.dump({"num_examples": 1}, open(out + "-metadata", "w"))
"""
ISOLATE = pytest.mark.skipif(means().cold is None, reason="this machine cannot isolate a task")
FINAL = ("final.npz", "final.npz-metadata")
EVERYWHERE = ["process", "forkserver", "resident", pytest.param("isolated", marks=ISOLATE)]


def write_client(folder, train, command="python train.py", *, startup=None, extra=""):
    """A package that is trained by some lines of Python, after ``TRAIN``."""
    folder.mkdir(parents=True)
    (folder / "train.py").write_text(TRAIN + textwrap.dedent(train))
    (folder / "seed.py").write_text("import sys, numpy as np\nnp.savez(sys.argv[1], **{'0': np.zeros(3, np.float32)})")
    commands = {"build": "python seed.py", "train": command, **({"startup": startup} if startup else {})}
    lines = [f"  {name}: {{command: {json.dumps(line)}}}\n" for name, line in commands.items()]
    (folder / "fedn.yaml").write_text("entry_points:\n" + "".join(lines) + extra)
    return folder


def write_data(folder, numbers=(1, 2), name="x.csv"):
    for number in numbers:
        (folder / str(number)).mkdir(parents=True)
        (folder / str(number) / name).write_text(",".join(str(float(number + k)) for k in range(3)))
        (folder / str(number) / "client_settings.yaml").write_text(f"lr: {number}")


def run(*words, where="process", data="d/*"):
    how = ["--isolate"] if where == "isolated" else [f"executor.name={where}"]
    return fedpkg("run", "--package", "client", "--rounds", "1", "--data", data, *how, *words)


def model():
    ended = fedpkg("model", "export", "latest", "-o", "final.npz", "--force")
    assert ended.code == 0, ended.err
    return np.load("final.npz")["0"].tolist()


def data_line(ended):
    return next((line for line in ended.err.splitlines() if line.startswith("data ")), "").removeprefix("data     ")
