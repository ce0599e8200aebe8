"""Lessons and pages of docs are run as they are written: in bash, in a copy of what a clone has."""

from __future__ import annotations

import atexit
import functools
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from warm import SHARE, warm_python

ROOT = Path(__file__).resolve().parents[1]
# What every push runs less of (a pattern, and what stands in its place there); `make soak` runs the whole.
SHORTER: dict[str, dict[str, str]] = {
    "README.md": {
        "run.yaml   ": "run.yaml rounds=1 clients.count=4   ",
        "rounds=3 clients.count=20": "rounds=1 clients.count=4",
    },
    "examples/clusters/README.md": {
        "run run.yaml\n": "run run.yaml rounds=1\n",
        "rounds=2": "rounds=1",
    },
    "examples/experiments/README.md": {"rounds=3": "rounds=1"},
    "examples/first-package/README.md": {"rounds=3 ": "rounds=1 clients.count=2 "},
    "examples/from-fedn/README.md": {
        "python prepare_data.py": "python prepare_data.py && rm -r data/clients/[234]",
        "--rounds 10 executor.workers=2": "--rounds 1 executor.workers=2",
    },
    "examples/message-app/README.md": {
        "num-server-rounds=5 fraction-train=1.0": "num-server-rounds=1 fraction-train=0.2",
        "partitioner=dirichlet alpha=0.3": "partitioner=dirichlet alpha=0.3 num-server-rounds=1",
    },
    "examples/personalised/README.md": {"fedpkg run run.yaml": "fedpkg run run.yaml rounds=1"},
    "examples/robust/README.md": {"rounds=3 validation.every=3": "rounds=1 validation.every=1"},
    "how-to/find-clusters.md": {"rounds=2": "rounds=1"},
    "tutorials/research-strategy.md": {"rounds=4": "rounds=1 clients.count=4"},
}


def shortened(text: str, shorter: Mapping[str, str]) -> str:
    for words, instead in shorter.items():
        assert words in text, words
        text = text.replace(words, instead)
    return text


def copy_of_repository(folder: Path) -> Path:
    """What a clone has for those who run things: examples, packages, seed models, and no home yet."""
    copy = folder / "eine kopie"
    unwanted = shutil.ignore_patterns(".fedpkg", "__pycache__", "*.npz-*")
    for name in ("examples", "packages", "seed_models"):
        shutil.copytree(ROOT / name, copy / name, ignore=unwanted)
    return copy


@functools.cache
def warm_commands() -> Path:
    """A folder with a command fedpkg that is a process of the warm parent."""
    folder = Path(tempfile.mkdtemp(prefix="commands-"))
    atexit.register(shutil.rmtree, folder)
    (folder / "fedpkg").write_text(f'#!/bin/sh\nexec {shlex.join(warm_python())} -m fedpkg "$@"\n')
    (folder / "fedpkg").chmod(0o755)
    return folder


def bash(script: str, cwd: Path, *, warm: bool = False, timeout_s: float = 300) -> str:
    """Run a script, which must succeed; what it printed.

    With ``warm``, the command fedpkg is a process of the warm parent, and so is python in the script's own lines, and
    they share zygotes; otherwise both are what is installed.
    """
    path = [str(Path(sys.executable).parent), os.environ["PATH"]]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("FEDPKG", "FEDN"))}
    if warm:
        path.insert(0, str(warm_commands()))
        script = f'python() {{ {shlex.join(warm_python())} "$@"; }}\n{script}'
        environ[SHARE] = "yes"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=cwd,
        env={**environ, "PATH": os.pathsep.join(path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
