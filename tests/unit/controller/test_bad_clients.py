"""One bad client hurts nobody: whatever it does is recorded, and the mean is that of the others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from federation import Federation

from fedpkg.stores.base import SessionRow
from fedpkg.stores.home import Home

# What a client does: the failure that is recorded, and words of the message.
FAILURES = {
    "exit3": ("exit_code", "'train' exited with code 3"),
    "exit_message": ("exit_code", "exited with code 1"),
    "raise": ("exit_code", "exited with code 1"),
    "signal": ("signal", "killed by SIGSEGV"),
    "sleep": ("timeout", "time limit of 6 s"),
    "no_file": ("no_file", "the task wrote no 'out.npz'"),
    "empty_file": ("bad_file", "out.npz"),
    "truncated": ("bad_file", "out.npz"),
    "pickle": ("bad_file", "pickle"),
    "nan": ("not_finite", "NaN or infinite"),
    "inf": ("not_finite", "NaN or infinite"),
    "huge_values": ("too_large", "too large to average over 10 examples"),
    "wrong_shape": ("mismatch", "has shape"),
    "broadcast_shape": ("mismatch", "has shape"),
    "wrong_dtype": ("mismatch", "int32"),
    "missing_tensor": ("mismatch", "missing tensor"),
    "extra_tensor": ("mismatch", "extra tensor"),
    "zero_examples": ("num_examples", "num_examples is zero"),
    "negative_examples": ("num_examples", "num_examples is negative"),
    "nan_examples": ("num_examples", "num_examples is NaN"),
    "text_examples": ("num_examples", "must be a number, not text"),
    "no_examples": ("num_examples", "num_examples is missing"),
    "no_metadata": ("num_examples", "num_examples is missing"),
    "bad_metadata": ("bad_metadata", "not JSON"),
    "symlink_out": ("not_a_file", "symbolic link"),
    "hardlink_out": ("not_a_file", "2 hard links"),
    "fifo_out": ("not_a_file", "not a regular file"),
    "dir_out": ("not_a_file", "not a regular file"),
    "huge_out": ("file_size", "limits.file_bytes is 8589934592"),
}


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> tuple[Federation, SessionRow]:
    """One round with a client of every kind, and two honest ones."""
    federation = Federation(Home.open(tmp_path_factory.mktemp("böse clients") / ".fedpkg"))
    kinds = list(FAILURES)
    clients = len(kinds) + 2
    plan = {f"client-{k:02d}": kind for k, kind in enumerate(kinds)}
    plan |= {f"client-{len(kinds) + k:02d}": "write_state" for k in range(2)}
    canary = federation.home.root / "canary"
    arguments = {"all": {"plan": json.dumps(plan)}, "train": {"canary": str(canary)}}
    row = federation.run(clients=clients, arguments=arguments, executor={"workers": 2, "timeout_s": 6})
    return federation, row


@pytest.mark.parametrize("kind", FAILURES)
def test_bad_client_is_a_recorded_failure(session: tuple[Federation, SessionRow], kind: str) -> None:
    federation, row = session
    task = federation.task(row, f"client-{list(FAILURES).index(kind):02d}")
    word, message = FAILURES[kind]
    assert (task.status, task.failure) == ("failed", word), task.message
    assert message in (task.message or "")
    assert (federation.folder(task) / "in.npz").is_file(), "kept, to repeat the call by hand"


def test_bad_clients_do_not_change_the_mean(session: tuple[Federation, SessionRow]) -> None:
    federation, row = session
    alone = federation.run(clients=2)
    assert row.status == "finished"
    done = federation.store.get_round(row.session_id, 1)
    assert (done.num_ok, done.num_failed) == (2, len(FAILURES))
    assert federation.steps_taken(row, 1) == federation.steps_taken(alone, 1)


def test_nothing_pickled_was_loaded(session: tuple[Federation, SessionRow]) -> None:
    federation, _row = session
    assert not (federation.home.root / "canary").exists()


def test_bad_clients_leave_no_state(session: tuple[Federation, SessionRow]) -> None:
    federation, row = session
    folder = federation.home.session_folder(row.session_id) / "clients"
    honest = {f"client-{len(FAILURES) + k:02d}" for k in range(2)}
    assert {client.name for client in folder.iterdir() if any(client.iterdir())} == honest


@pytest.mark.parametrize(
    ("dtype", "strategy"),
    [
        ("float64", {"name": "fedavg"}),
        ("float32", {"name": "fedyogi"}),
        ("float16", {"name": "fedavgm"}),
    ],
)
@pytest.mark.every_push("float16")
def test_largest_number_of_a_dtype_is_its_clients_failure_and_the_session_goes_on(
    tmp_path: Path, dtype: str, strategy: dict[str, str]
) -> None:
    federation = Federation(Home.open(tmp_path / ".fedpkg"))
    seed = {"w": np.ones((10, 32), dtype), "b": np.zeros(10, dtype), "steps": np.array(0)}
    np.savez(tmp_path / "seed.npz", **seed)
    facts = {"strategy": strategy, "seed_model": str(tmp_path / "seed.npz"), "plan": {"client-1": "largest_value"}}
    row = federation.run(federation.config(**facts))
    row = federation.resume(row.session_id, rounds=2)
    assert row.status == "finished"
    tasks = federation.store.list_tasks(row.session_id)
    assert [(task.client_id, task.failure) for task in tasks if task.status != "ok"] == [("client-1", "too_large")] * 2
    assert all(federation.model(f"{row.session_id}.{number}").first_non_finite() is None for number in (1, 2))


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["process", "forkserver"])
@pytest.mark.every_push("forkserver")
def test_fork_bomb_among_four_clients_changes_nothing_for_the_others(tmp_path: Path, executor: str) -> None:
    federation = Federation(Home.open(tmp_path / ".fedpkg"))
    plans = {"with": {"client-1": "fork_bomb"}, "without": {"client-1": "exit3"}}
    rows = {
        name: federation.run(clients=4, plan=plan, executor={"name": executor, "workers": 2}, limits={"processes": 128})
        for name, plan in plans.items()
    }
    assert federation.task(rows["with"], "client-1").failure == "processes"
    assert federation.digests(rows["with"].session_id) == federation.digests(rows["without"].session_id)
    for client in ("client-0", "client-2", "client-3"):
        assert federation.task(rows["with"], client).status == "ok"
