"""An executor without processes: its clients answer at once. For what does not depend on who runs a task."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from fedpkg.dispatch.base import Failure, Task, TaskResult
from fedpkg.dispatch.collect import Refused, collect
from fedpkg.dispatch.travel import travelled
from fedpkg.types import Json


def answer_of(task: Task, out: Path) -> TaskResult:
    """What an executor makes of a task that wrote ``out``."""
    try:
        found = collect(task, out)
        found = found if task.transforms is None else travelled(task, found, task.transforms)
    except Refused as refused:
        return TaskResult(task, "failed", failure=refused.failure, started_at=time.time())
    return TaskResult(
        task,
        "ok",
        reply=found.path,
        reply_bytes=found.size_bytes,
        converted=found.converted,
        weights=found.weights,
        num_examples=found.num_examples,
        metadata=found.metadata,
        metrics=found.metrics,
        started_at=time.time(),
    )


class AtOnce:
    """Trains like tests/packages/drifting: by the input, the task's seed, and who it is. ``fails``: client@round.

    ``validates``, by client: what it reports instead of its usual metrics. ``examples``, by client: its num_examples.
    """

    slots = 1
    is_warming = False

    def __init__(self, fails: Iterable[str] = ()) -> None:
        self.fails = frozenset(fails)
        self.validates: dict[str, Json] = {}
        self.examples: dict[str, float] = {}

    def submit(self, task: Task) -> Future[TaskResult]:
        done: Future[TaskResult] = Future()
        done.set_result(self._answer(task))
        return done

    def _answer(self, task: Task) -> TaskResult:
        task.folder.mkdir(parents=True)
        if f"{task.client_id}@{task.round_number}" in self.fails and task.entry_point == "train":
            return TaskResult(task, "failed", failure=Failure("exit_code", "it fails"), started_at=time.time())
        rng, who = np.random.default_rng(task.seed), task.partition_id
        out = task.folder / (f"out{task.suffix}" if task.entry_point != "validate" else "out.json")
        if task.entry_point == "build":
            np.savez(out, w=rng.standard_normal((7, 3)).astype(np.float32))
        elif task.entry_point == "validate":
            usual = {"mean": float(load(task)["w"].mean()) + who, "num_examples": 1 + who}
            out.write_text(json.dumps(self.validates.get(task.client_id, usual)))
        else:
            update = 0.9 * load(task)["w"] + rng.standard_normal((7, 3)) + who
            np.savez(out, w=update.astype(np.float32))
            said = {
                "num_examples": self.examples.get(task.client_id, 3 + 5 * who),
                "loss": 1 / (1 + who) + rng.random(),
            }
            Path(f"{out}-metadata").write_text(json.dumps(said))
        return answer_of(task, out)

    def cancel(self, task_id: str) -> None:
        """Too late."""

    def close(self) -> None:
        """Nothing runs."""


def load(task: Task) -> Any:
    assert task.model is not None
    return np.load(task.model)
