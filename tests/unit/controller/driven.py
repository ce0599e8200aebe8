"""Controllers in processes of their own, which tests kill, and all that must be the same after a resume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import asdict
from pathlib import Path

import psutil
from federation import Federation
from warm import warm_python

from fedpkg.config import RunConfig, dump_config

DRIVE = Path(__file__).with_name("drive.py")


def outcome_of(federation: Federation, session_id: str) -> list[object]:
    """All that must be the same however a session was run: models, who counted, averages."""
    rounds = federation.store.list_rounds(session_id)
    return [
        federation.digests(session_id),
        [(row.cohort, row.counted, row.num_ok, row.num_failed, row.num_examples) for row in rounds],
        [(row.metrics, row.train_metrics) for row in rounds],
        [{**asdict(row), "session_id": ""} for row in federation.store.list_metric_rows(session_id)],
    ]


def drive(federation: Federation, *words: str) -> subprocess.Popen[str]:
    """A controller in a process of its own; see there for the words."""
    return subprocess.Popen(
        [*warm_python(), str(DRIVE), str(federation.home.root), *words],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TEST_MARK": str(federation.home.root)},
    )


def write_config(federation: Federation, config: RunConfig) -> str:
    path = federation.home.root / "config.json"
    path.write_text(json.dumps(dump_config(config)))
    return str(path)


def killed(federation: Federation, *words: str) -> str:
    """What a controller printed that killed itself."""
    process = drive(federation, *words)
    printed, _ = process.communicate(timeout=200)
    assert process.returncode == -signal.SIGKILL, (words, printed)
    return printed


def processes_of(federation: Federation) -> list[psutil.Process]:
    """Everything alive that was started for this test, wherever it hangs in the tree."""
    found = []
    for process in psutil.process_iter():
        try:
            if (
                process.environ().get("TEST_MARK") == str(federation.home.root)
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_until_gone(federation: Federation, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while left := processes_of(federation):
        assert time.monotonic() < deadline, [process.cmdline() for process in left]
        psutil.wait_procs(left, timeout=0.05)
