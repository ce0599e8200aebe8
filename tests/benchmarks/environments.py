"""How much later a run starts whose package has an environment of its own, once that is made.

python environments.py [--repeat 10]

One package twice: with its module beside the script, and wanting it from a wheel of its own. Runs of both take turns.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from figures import Figure, parser, run_measured, save, spread, table

FEDN_YAML = "entry_points:\n  train: {command: python train.py}\n"
MODULE = "STEP = 1.0\n"
SCRIPT = """\
import json, shutil, sys
import tiny_step

model, update = sys.argv[1:3]
assert tiny_step.STEP == 1.0
shutil.copyfile(model, update)
with open(update + "-metadata", "w") as file:
    json.dump({"num_examples": 1}, file)
"""
WHEEL = "tiny_step-1.0-py3-none-any.whl"


def write_package(folder, *, own):
    """The package; with ``own`` it wants its module to be installed."""
    folder.mkdir()
    (folder / "train.py").write_text(SCRIPT)
    (folder / "fedn.yaml").write_text(FEDN_YAML)
    if not own:
        (folder / "tiny_step.py").write_text(MODULE)
        return
    info = "tiny_step-1.0.dist-info"
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        wheel.writestr("tiny_step.py", MODULE)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny_step\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", f"tiny_step.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    (folder / "requirements.txt").write_text(f"./{WHEEL}\n")


def run(package, folder, seed_model, environ):
    """One run of a round with one client: seconds until its first task was done, and of the whole process."""
    from fedpkg.stores.sqlite import SqliteStore

    config = folder / "run.yaml"
    config.write_text(
        f'package: "{package}"\nseed_model: "{seed_model}"\n'
        "rounds: 1\nclients: {count: 1}\nvalidation: {every: 0}\n"
    )
    home = folder / "home"
    shutil.rmtree(home, ignore_errors=True)
    began = time.time()
    wall_s, _, _ = run_measured([sys.executable, "-m", "fedpkg", "run", str(config), "--home", str(home)], env=environ)
    with SqliteStore(home / "state.db", read_only=True) as store:
        (session,) = store.list_sessions()
        (task,) = store.list_tasks(session.session_id)
    return task.started_at + task.wall_s - began, wall_s


def main():
    options = parser(__doc__)
    options.add_argument("--repeat", type=int, default=10, metavar="N", help="runs of each (default: 10)")
    given = options.parse_args()
    import numpy as np

    with tempfile.TemporaryDirectory(prefix="fedpkg-bench-") as name:
        folder = Path(name)
        environ = {**os.environ, "FEDPKG_ENVIRONMENTS": str(folder / "environments")}
        np.savez(folder / "seed.npz", w=np.zeros(1000, np.float32))
        packages = {"without": folder / "without", "with": folder / "with"}
        for kind, package in packages.items():
            write_package(package, own=kind == "with")
        done = {kind: [] for kind in packages}
        walls = {kind: [] for kind in packages}
        _, making_s = run(packages["with"], folder, folder / "seed.npz", environ)
        run(packages["without"], folder, folder / "seed.npz", environ)
        for _ in range(given.repeat):
            for kind, package in packages.items():
                done_s, wall_s = run(package, folder, folder / "seed.npz", environ)
                done[kind].append(done_s)
                walls[kind].append(wall_s)
        made = subprocess.run(
            [sys.executable, "-m", "fedpkg", "environment", "list"], env=environ, capture_output=True, text=True
        )
        assert made.stdout.count("requirements.txt") == 1, made.stdout
    later = [one - other for one, other in zip(done["with"], done["without"], strict=True)]
    longer = [one - other for one, other in zip(walls["with"], walls["without"], strict=True)]
    print(f"A run of one task, s: medians (min – max) of {given.repeat}; the first, which made it, took {making_s:.1f}")
    table(
        [
            ("without an environment", spread(done["without"], 2), spread(walls["without"], 2)),
            ("with one", spread(done["with"], 2), spread(walls["with"], 2)),
            ("later by", spread(later, 2), spread(longer, 2)),
        ],
        ["", "until its task was done", "whole process"],
    )
    value = f"{statistics.median(later):.2f}"
    save(given.figures, [Figure("a package with an environment starts later by, s", value, "≤ 0.3")])


if __name__ == "__main__":
    main()
