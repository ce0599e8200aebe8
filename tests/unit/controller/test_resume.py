"""Nothing lost, and bit-identical: whatever ends a controller, resuming gives the model of an undisturbed run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from federation import Federation

from fedpkg.config import RunConfig, dump_config

DRIVE = Path(__file__).with_name("drive.py")
# Four clients, two of them asked, one of which may fail; state beside the code; validation. Rounds of random draws.
PLAN = {"client-0": "write_state", "client-1@2": "exit3", "client-2": "write_state"}


def config_of(federation: Federation, **changes: object) -> RunConfig:
    return federation.config(
        clients=4,
        rounds=3,
        plan=PLAN,
        sampler={"fraction_train": 0.75},
        validation={"every": 2, "fraction": 0.5},
        **changes,
    )


def drive(federation: Federation, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(DRIVE), str(federation.home.root), *words],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TEST_MARK": str(federation.home.root)},
    )


def write_config(federation: Federation, config: RunConfig) -> str:
    path = federation.home.root / "config.json"
    path.write_text(json.dumps(dump_config(config)))
    return str(path)


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


def wait_until_gone(federation: Federation, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while left := processes_of(federation):
        assert time.monotonic() < deadline, [process.cmdline() for process in left]
        psutil.wait_procs(left, timeout=0.05)


@pytest.mark.slow
def test_killed_at_any_event_a_session_resumes_to_the_same_bits(federation: Federation) -> None:
    undisturbed = federation.run(config_of(federation))
    expected = federation.digests(undisturbed.session_id)
    events = len(federation.events)
    config = write_config(federation, config_of(federation))
    for kill_at in range(1, events):
        process = drive(federation, config, "--kill-at", str(kill_at))
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, kill_at
        wait_until_gone(federation, within_s=5)
        session = federation.store.list_sessions()[-1]
        assert federation.resume(session.session_id).status == "finished"
        assert federation.digests(session.session_id) == expected, f"killed at event {kill_at}"


def test_killed_twice_in_a_round_a_session_loses_only_tasks_in_flight(federation: Federation) -> None:
    undisturbed = federation.run(config_of(federation))
    config = write_config(federation, config_of(federation))
    process = drive(federation, config, "--kill-at", "4")  # after the second task of the first round
    process.communicate(timeout=60)
    session = federation.store.list_sessions()[-1]
    assert len(federation.store.list_tasks(session.session_id, round_number=1)) == 2
    federation.resume(session.session_id)
    attempts = [
        task.attempt for task in federation.store.list_tasks(session.session_id, round_number=1, entry_point="train")
    ]
    assert len(attempts) == 3, "the two recorded tasks were not run again"
    assert federation.digests(session.session_id) == federation.digests(undisturbed.session_id)


@pytest.mark.parametrize("changes", [{"executor": {"workers": 1}}, {"executor": {"workers": 4}}])
def test_number_of_workers_does_not_change_a_bit(federation: Federation, changes: dict[str, object]) -> None:
    assert federation.digests(federation.run(config_of(federation)).session_id) == federation.digests(
        federation.run(config_of(federation, **changes)).session_id
    )


@pytest.mark.slow
def test_executor_does_not_change_a_bit(federation: Federation) -> None:
    warm = federation.run(config_of(federation))
    cold = federation.run(config_of(federation, executor={"name": "process", "workers": 2}))
    assert federation.digests(warm.session_id) == federation.digests(cold.session_id)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_a_controller_that_ends(federation: Federation, number: signal.Signals) -> None:
    config = write_config(
        federation, federation.config(plan={"client-0": "ignore_sigterm", "client-1": "daemon", "client-2": "sleep"})
    )
    process = drive(federation, config)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("TaskEnded"):  # the daemon's task; the other two run for ever
            break
    process.send_signal(number)
    wait_until_gone(federation, within_s=2)
    process.communicate()
    session = federation.store.list_sessions()[-1]
    assert session.status == ("interrupted" if number == signal.SIGINT else "running")


def test_interrupted_session_resumes_to_the_same_bits(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    config = federation.config(clients=2, rounds=2)
    expected = federation.digests(federation.run(config).session_id)
    monkeypatch.setenv("MISBEHAVE", "sleep")
    process = drive(federation, write_config(federation, config))
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("PhaseStarted"):
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    monkeypatch.delenv("MISBEHAVE")
    session = federation.store.list_sessions()[-1]
    assert session.status == "interrupted"
    federation.resume(session.session_id)
    assert federation.digests(session.session_id) == expected
