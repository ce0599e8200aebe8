"""Lessons and pages of docs are run as they are written: in bash, in a copy of what a clone has."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# In a lesson's own lines (not in what these start) both commands are a process of the warm parent; the examples without
# a lesson and the seed models are made by the commands as they are installed.
WARM = """
python() { %(python)s "$@"; }
fedpkg() { %(python)s -m fedpkg "$@"; }
"""


def copy_of_repository(folder: Path) -> Path:
    """What a clone has for those who run things: examples, packages, seed models, and no home yet."""
    copy = folder / "eine kopie"
    unwanted = shutil.ignore_patterns(".fedpkg", "__pycache__", "*.npz-*")
    for name in ("examples", "packages", "seed_models"):
        shutil.copytree(ROOT / name, copy / name, ignore=unwanted)
    return copy


def bash(script: str, cwd: Path) -> str:
    """Run a script, which must succeed; what it printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("FEDPKG", "FEDN"))}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=cwd,
        env={**environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
