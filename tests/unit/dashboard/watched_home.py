"""A home with a session of every kind, each of which really ran: what the pages are looked at with."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from warm import warm_python

import fedpkg

PACKAGE = Path(__file__).resolve().parents[2] / "packages" / "watched"
# In names of clients, regions, files and keys, in metrics, logs, errors and the configuration.
HOSTILE = "<img src=x onerror=window.hacked=1></script><script>window.hacked=1</script>{{7*7}}'\"&\x1b[31m\u202e"
NAMES = (
    "<b onmouseover=hacked>",
    "مريض-١",
    "😀 clinic",
    "x" * 200,
    "~a?b#c%2e%2f&d",
    "%2e%2e",
    "'\"><svg onload=hacked>",
)


def make_home(root: Path) -> Path:
    """Run all sessions of the home. A few seconds each would be too many: clients are NumPy alone, and few."""
    home = root / "home"
    run(home, name="finished", clients={"count": 3}, rounds=4)
    run(home, name="failing", clients={"count": 4}, rounds=3, arguments={"train": {"fails": "0@1,1@1,0@3"}})
    run_hostile(root, home)
    privacy = {"name": "dp_fedavg", "clip_norm": 1.0, "noise_multiplier": 1.0, "delta": 1e-5}
    run(home, name="private", clients={"count": 3}, rounds=2, strategy=privacy)
    found = {"from": "updates", "cut": {"clusters": 2}, "first": 1, "own_models": True}
    run(home, name="clustered", clients={"count": 4}, rounds=2, topology={"infer": found})
    swept = run_yaml(name="swept", clients={"count": 2}, rounds=1)
    fedpkg.sweep(swept, {"seed": [1, 2], "round.required": [1, 2]}, home=home, progress=False)
    kill_one(root, home)
    return home


def run(home: Path, **keys: Any) -> str:
    session = fedpkg.run(run_yaml(**keys), home=home, progress=False)
    return str(session.id)


def run_yaml(package: Path = PACKAGE, **keys: Any) -> Mapping[str, Any]:
    return {"package": str(package), "seed": 7, "executor": {"name": "forkserver", "workers": 2}, **keys}


def run_hostile(root: Path, home: Path) -> str:
    """A tree of clients whose texts try to become markup."""
    package = root / "pack <b>&age"
    shutil.copytree(PACKAGE, package)
    (package / "<img src=x onerror=window.hacked=1>.txt").write_text(HOSTILE)
    regions = ("north <i>", "south")
    entities = [{"id": name, "region": regions[number % 2], "note <u>": HOSTILE} for number, name in enumerate(NAMES)]
    listed = root / "entities.yaml"
    listed.write_text(json.dumps(entities, ensure_ascii=False))
    return run(
        home,
        package=package,
        name="hostile",
        rounds=2,
        clients={"entities": str(listed)},
        topology={"by": "region"},
        environment={"WATCHED_TEXT": HOSTILE.replace("\x1b", "")},
        arguments={"train": {"fails": "1@2"}},
    )


def kill_one(root: Path, home: Path) -> None:
    """A session whose process is killed in its second round."""
    gate = root / "killed"
    gate.mkdir()
    (gate / "1").touch()
    file = root / "killed.yaml"
    file.write_text(
        json.dumps(run_yaml(name="killed", clients={"count": 2}, rounds=3, arguments={"train": {"gate": str(gate)}}))
    )
    command = [*warm_python(), "-m", "fedpkg", "run", str(file), "--home", str(home), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "round_finished" in line:
                break
        process.send_signal(signal.SIGKILL)
