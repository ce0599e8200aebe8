"""The first square root of a process has the bits of the second, however many threads make it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fedpkg.dispatch.staging import THREAD_VARIABLES
from fedpkg.weights.vector_math import VECTOR_MATH

TASK = Path(__file__).resolve().parents[3] / "fedpkg/runtime/path/_fedpkg_task.py"
ROOT_TWICE = """
import sys
import torch

torch.set_num_threads(4)
if sys.argv[1] == "controller":
    import fedpkg.weights.weights
elif sys.argv[1] == "task":
    sys.path.insert(0, sys.argv[2])
    import _fedpkg_task
    _fedpkg_task.warm_vector_math(torch)
numbers = torch.linspace(0.5, 2, 1 << 17)
sys.exit(9 if not torch.equal(numbers.sqrt(), numbers.sqrt()) else 0)
"""


def wrong_first_roots(where: str, processes: int, *, at_once: int = 4) -> int:
    """Of so many fresh processes, those whose first square root was another than the second."""
    command, ended = [sys.executable, "-c", ROOT_TWICE, where, str(TASK.parent)], []
    for start in range(0, processes, at_once):
        running = [subprocess.Popen(command) for _ in range(min(at_once, processes - start))]
        ended += [process.wait() for process in running]
    assert set(ended) <= {0, 9}
    return ended.count(9)


def test_controller_and_tasks_call_the_same_functions_first() -> None:
    names: dict[str, object] = {}
    exec(compile(TASK.read_text(), str(TASK), "exec"), names)
    assert names["VECTOR_MATH"] == VECTOR_MATH
    assert names["THREAD_VARIABLES"] == THREAD_VARIABLES, "those that a task's environment is given"
    assert all(hasattr(torch.Tensor, name) for name in VECTOR_MATH.split())


@pytest.mark.slow
def test_first_square_roots_of_fresh_processes_are_right() -> None:
    assert wrong_first_roots("controller", 2) == wrong_first_roots("task", 2) == 0


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("where", ["controller", "task"])
def test_first_square_roots_of_two_hundred_fresh_processes_are_right(where: str) -> None:
    assert wrong_first_roots(where, 200) == 0
