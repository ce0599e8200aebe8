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
from federation import DRIFTING, Federation

from fedpkg.config import RunConfig, dump_config
from fedpkg.errors import SessionFailed

DRIVE = Path(__file__).with_name("drive.py")


def config_of(federation: Federation, **changes: object) -> RunConfig:
    """Four clients of which three are asked and some fail; draws that nobody seeds; state; weights; validation."""
    return federation.config(
        **{
            "package": str(DRIFTING),
            "clients": 4,
            "rounds": 3,
            "sampler": {"fraction_train": 0.75},
            "validation": {"every": 2, "fraction": 0.5},
            "arguments": {"train": {"fails": "client-1@2,client-2@3,client-0@1"}},
            **changes,
        }
    )


def outcome_of(federation: Federation, session_id: str) -> list[object]:
    """All that must be the same however a session was run: models, who counted, averages."""
    rounds = federation.store.list_rounds(session_id)
    return [
        federation.digests(session_id),
        [(row.cohort, row.counted, row.num_ok, row.num_failed, row.num_examples) for row in rounds],
        [(row.metrics, row.train_metrics) for row in rounds],
    ]


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
    expected = outcome_of(federation, undisturbed.session_id)
    assert any(row[3] for row in expected[1]), "some client failed"  # type: ignore[attr-defined]
    events = len(federation.events)
    config = write_config(federation, config_of(federation))
    for kill_at in range(1, events):
        process = drive(federation, config, "--kill-at", str(kill_at))
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, kill_at
        wait_until_gone(federation, within_s=5)
        session = federation.store.list_sessions()[-1]
        assert federation.resume(session.session_id).status == "finished"
        assert outcome_of(federation, session.session_id) == expected, f"killed at event {kill_at}"


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", ["begin_round", "set_counted", "commit_round", "finish_round"])
def test_killed_at_a_commit_a_session_resumes_to_the_same_bits(federation: Federation, step: str, moment: str) -> None:
    undisturbed = federation.run(config_of(federation))
    config = write_config(federation, config_of(federation))
    process = drive(federation, config, "--kill-at-step", f"{moment}:{step}:2")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    session = federation.store.list_sessions()[-1]
    assert federation.resume(session.session_id).status == "finished"
    assert outcome_of(federation, session.session_id) == outcome_of(federation, undisturbed.session_id)


@pytest.mark.slow
def test_retry_that_is_killed_is_a_retry_again(federation: Federation) -> None:
    config = config_of(federation, sampler={}, round={"required": 4}, arguments={"train": {"fails": "client-1@1"}})
    with pytest.raises(SessionFailed):
        federation.run(config)
    session = federation.store.list_sessions()[-1]
    process = drive(federation, "--kill-at-step", "after:begin_round:1", "--resume", session.session_id)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    with pytest.raises(SessionFailed):
        federation.resume(session.session_id)
    assert federation.task(session, "client-1").attempt >= 2, "the client that failed was asked again"
    assert federation.task(session, "client-0").attempt == 1, "the others were not"


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
    assert outcome_of(federation, session.session_id) == outcome_of(federation, undisturbed.session_id)


@pytest.mark.parametrize("changes", [{"executor": {"workers": 1}}, {"executor": {"workers": 4}}])
def test_number_of_workers_does_not_change_a_bit(federation: Federation, changes: dict[str, object]) -> None:
    one = federation.run(config_of(federation)).session_id
    other = federation.run(config_of(federation, **changes)).session_id
    assert outcome_of(federation, one) == outcome_of(federation, other)


def test_seed_changes_the_models(federation: Federation) -> None:
    one, other = federation.run(config_of(federation)), federation.run(config_of(federation, seed=1))
    assert not set(federation.digests(one.session_id)) & set(federation.digests(other.session_id))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["process", "resident"])
def test_executor_does_not_change_a_bit(federation: Federation, name: str) -> None:
    forked = federation.run(config_of(federation))
    other = federation.run(config_of(federation, executor={"name": name, "workers": 2}))
    assert outcome_of(federation, forked.session_id) == outcome_of(federation, other.session_id)


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
