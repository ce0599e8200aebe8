"""What holds for root's tasks holds for those of an ordinary user: a selection on every push, all in make soak."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from workbench import NOBODY_ELSE, run_tests_as_nobody

HERE = Path(__file__).parent
LIMITS = HERE / "test_task_limits.py"
PROCESSES = "timeout or cancel_ends or leaves_behind or killed_holder or closes_its or folder_as or mischief"
ONE_LIMIT_OF_EACH_KIND = (
    "bomb and double or fills_its and (many or name) or too_large and one or memory_bytes or that_is_a_file or "
    "computes or opens_too or busy_threads"
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.getuid() != 0, reason="runs as an ordinary user already"),
]


def test_limits_of_each_kind_hold() -> None:
    run_tests_as_nobody(f"({ONE_LIMIT_OF_EACH_KIND}) and forkserver", LIMITS, user=NOBODY_ELSE)


@pytest.mark.soak
@pytest.mark.parametrize("name", ["process", "forkserver"])
@pytest.mark.parametrize(
    "which",
    ["fork_bomb", "fills_its", "too_large", "memory or computes or opens_too or flood", "less_priority or very_many"],
)
def test_all_limits_hold(which: str, name: str) -> None:
    run_tests_as_nobody(f"({which}) and {name}", LIMITS, user=NOBODY_ELSE, whole=True)


def test_processes_of_a_task_end() -> None:
    which = "(timeout or cancel_ends or leaves_behind or closes_its) and forkserver"
    run_tests_as_nobody(which, HERE / "test_task_processes.py")


@pytest.mark.soak
def test_processes_of_a_task_end_wherever_it_runs() -> None:
    run_tests_as_nobody(PROCESSES, HERE, whole=True)


def test_walls_hold() -> None:
    run_tests_as_nobody("task_cannot or isolated_task_can or its_time_limit", HERE / "test_isolation.py")


@pytest.mark.soak
def test_all_walls_and_their_limits_hold() -> None:
    run_tests_as_nobody("isolated and not nobody or limit_holds", HERE / "test_isolation.py", whole=True)


@pytest.mark.soak
def test_big_files_are_shared_by_their_tasks_too() -> None:
    run_tests_as_nobody("process and (share_one_copy or own_clients or may_not_write)", HERE / "test_package_files.py")
