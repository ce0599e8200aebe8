"""What goes wrong in the original of message apps is right here, in whole sessions.

Of its other defects, these files have tests: `test_strategy_replies` (dtypes, NaN, shapes, weights, keys of single
replies), `test_strategy_private` (an update of zeros and integers under differential privacy), `test_strategy_methods`
(Krum on large weights), `test_records` (dtypes, tied arrays, numbers of NumPy, names in errors), `test_message`,
`test_server_app` (the order of replies, kills, 10,000 nodes), `test_public_apps` (the same bits on all executors).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from public_apps import APPS, Apps
from zygotes import shared_zygotes

from fedpkg.cli.main import run_command

__all__ = ["shared_zygotes"]

ALL = 30 / 10  # what a round adds: clients 1 to 4 add their number, which is also their weight
WITHOUT_ONE = 29 / 9
# By fault of the first client in a round: what the round adds, how its task is recorded.
FAULTS = {
    "none": (WITHOUT_ONE, "exit_code"),
    "dictionary": (WITHOUT_ONE, "exit_code"),
    "raises": (WITHOUT_ONE, "exit_code"),
    "leaves": (WITHOUT_ONE, "no_file"),
    "killed": (WITHOUT_ONE, "signal"),
    "segfault": (WITHOUT_ONE, "signal"),
    "nan": (WITHOUT_ONE, None),
    "infinite": (WITHOUT_ONE, None),
    "shape": (WITHOUT_ONE, None),
    "broadcast": (WITHOUT_ONE, None),
    "extra_array": (WITHOUT_ONE, None),
    "extra_metric": (ALL, None),
    "no_weight": (WITHOUT_ONE, None),
    "fine": (ALL, None),
}


@pytest.mark.parametrize("executor", ["process", "forkserver", "resident"])
@pytest.mark.every_push("resident")
def test_a_fault_of_one_client_costs_one_reply_of_one_round(apps: Apps, executor: str) -> None:
    """The original waits an hour for None, loses a worker with each process that dies, and ends at another key."""
    session = apps.run("faults", f"rounds='{' '.join(FAULTS)}'", executor=executor)
    result = json.loads((apps.saved / "result.json").read_text())
    steps = np.diff(result["w"], axis=0)
    np.testing.assert_allclose(steps, [[adds] * 5 for adds, _ in FAULTS.values()])
    tasks = apps.federation.store.list_tasks(session.session_id, client_id="client-0")
    last = {task.round_number: task.failure for task in tasks}
    assert dict(zip(FAULTS, last.values(), strict=True)) == {fault: why for fault, (_, why) in FAULTS.items()}
    rounds = apps.federation.store.list_rounds(session.session_id)
    assert [row.num_ok for row in rounds] == [3 if why else 4 for _, why in FAULTS.values()]
    failed = sum(why is not None for _, why in FAULTS.values())
    assert result["metrics"][-1]["calls"] == [len(FAULTS) - failed, *[len(FAULTS)] * 3], "a failed call keeps no state"


@pytest.mark.soak
def test_the_same_seed_gives_the_same_bits_with_one_and_four_workers(apps: Apps) -> None:
    """In the original neither the nodes nor the order in which replies are summed follow from a seed."""
    words = ("rounds='fine fine fine'", "noise=0.3", "fraction-train=0.5", "run.clients.count=9")
    found = [apps.outcome(apps.run("faults", *words, workers=workers)) for workers in (1, 4)]
    assert found[0] == found[1]
    weights = [tuple(one["num-examples"]) for one in json.loads((apps.saved / "result.json").read_text())["metrics"]]
    assert len(set(weights)) > 1 and all(len(one) == 4 for one in weights), "nodes are drawn"


def run(*words: str) -> int:
    return run_command(["run", str(APPS / "faults"), *words, "run.executor.name=forkserver", "--home", "home"])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rounds=server"], "RuntimeError: the server is at fault"),
        pytest.param(["--nodes", "1"], "there are 1 nodes, and 2 are needed", marks=pytest.mark.soak),
    ],
)
def test_an_app_that_fails_ends_the_command_with_an_error(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    """The original's command ends with 0, and waits without end for nodes that never come."""
    assert run(*words) not in (0, None)
    assert said in capsys.readouterr().err


def test_a_run_installs_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The original runs `uv sync` before each run, offline too."""
    app, tools = here / "app", here / "tools"
    tools.mkdir()
    for name in ("uv", "pip", "pip3", "conda"):
        (tools / name).write_text(f"#!/bin/sh\ntouch '{here}/installed'\nexit 1\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setenv("FEDPKG_ENVIRONMENTS", str(here / "environments"))
    shutil.copytree(APPS / "faults", app, ignore=shutil.ignore_patterns("__pycache__"))
    text = (app / "pyproject.toml").read_text().replace('"numpy"', '"numpy", "no-such-library-anywhere>=9"')
    (app / "pyproject.toml").write_text(text)
    assert run_command(["run", "app", f"save-in='{here}'", "run.executor.name=forkserver", "--home", "home"]) == 0
    assert "no-such-library-anywhere" in capsys.readouterr().err
    assert not (here / "installed").exists() and not (here / "environments").exists()
    assert (here / "result.json").exists()
