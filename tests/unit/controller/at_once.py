"""Executors without processes: their clients answer at once. For what does not depend on who runs a task."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from fedpkg.dispatch.attempt import take_reply
from fedpkg.dispatch.client_states import OnSite
from fedpkg.dispatch.site import Job, Site
from fedpkg.files import remove_tree
from fedpkg.types import Json
from fedpkg.waist.answer import Answer, Failure, Refused
from fedpkg.waist.order import Order


class InProcess(OnSite):
    """An executor whose tasks are function calls: `write` is what a client does."""

    slots = 1
    is_warming = False

    def __init__(self) -> None:
        """It gets its site when a session makes its executor."""

    def make(self, config: Any, site: Site, *_: Any, **__: Any) -> InProcess:
        """In place of `fedpkg.session.executors.make_executor`."""
        super().__init__(site)
        return self

    def write(self, job: Job) -> None:
        """Do a task, and write its reply to ``job.place.out``."""
        raise NotImplementedError

    def refusal(self, order: Order) -> Failure | None:
        """Why a task fails before it has begun."""
        return None

    def submit(self, order: Order) -> Future[Answer]:
        done: Future[Answer] = Future()
        done.set_result(self._answer(self.site.job(order)))
        return done

    def _answer(self, job: Job) -> Answer:
        order, failure = job.order, self.refusal(job.order)
        facts: dict[str, Any] = {"task_id": order.task_id, "folder": job.folder_name, "started_at": time.time()}
        remove_tree(job.place.folder)  # of a session that was killed
        remove_tree(job.place.version)
        job.place.folder.mkdir(parents=True)
        (job.place.version / "state").mkdir(parents=True)
        if failure is not None:
            return Answer(status="failed", failure=failure, **facts)
        self.write(job)
        try:
            reply, checked = take_reply(job)
        except Refused as refused:
            return Answer(status="failed", failure=refused.failure, **facts)
        return Answer(
            status="ok",
            reply=reply,
            num_examples=checked.num_examples,
            metadata=dict(checked.metadata),
            metrics=checked.metrics,
            converted=checked.converted,
            **facts,
        )

    def cancel(self, task_id: str) -> None:
        """Too late."""

    def close(self) -> None:
        """Nothing runs."""


class AtOnce(InProcess):
    """Trains like tests/packages/drifting: by the input, the task's seed, and who it is. ``fails``: client@round.

    ``validates``, by client: what it reports instead of its usual metrics. ``examples``, by client: its num_examples.
    ``hangs``: clients whose training ends when it is cancelled.
    """

    def __init__(self, fails: Iterable[str] = ()) -> None:
        self.fails = frozenset(fails)
        self.hangs: frozenset[str] = frozenset()
        self._hanging: dict[str, Future[Answer]] = {}
        self.validates: dict[str, Json] = {}
        self.examples: dict[str, float] = {}

    def submit(self, order: Order) -> Future[Answer]:
        if order.client_id in self.hangs and order.entry_point == "train":
            self._hanging[order.task_id] = Future()
            return self._hanging[order.task_id]
        return super().submit(order)

    def cancel(self, task_id: str) -> None:
        if (hanging := self._hanging.pop(task_id, None)) is not None:  # for others it is too late
            hanging.set_result(Answer(task_id=task_id, status="cancelled"))

    def refusal(self, order: Order) -> Failure | None:
        is_to_fail = f"{order.client_id}@{order.round_number}" in self.fails and order.entry_point == "train"
        return Failure("exit_code", "it fails") if is_to_fail else None

    def write(self, job: Job) -> None:
        order, out = job.order, job.place.out
        rng, who = np.random.default_rng(order.seed), order.partition_id
        if order.entry_point == "build":
            np.savez(out, w=rng.standard_normal((7, 3)).astype(np.float32))
        elif order.entry_point == "validate":
            usual = {"mean": float(load(job)["w"].mean()) + who, "num_examples": 1 + who}
            out.write_text(json.dumps(self.validates.get(order.client_id, usual)))
        else:
            update = 0.9 * load(job)["w"] + rng.standard_normal((7, 3)) + who
            np.savez(out, w=update.astype(np.float32))
            said = {
                "num_examples": self.examples.get(order.client_id, 3 + 5 * who),
                "loss": 1 / (1 + who) + rng.random(),
            }
            Path(f"{out}-metadata").write_text(json.dumps(said))


def load(job: Job) -> Any:
    assert job.model is not None
    return np.load(job.model)
