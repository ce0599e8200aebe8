"""Tasks that a function has created, checked and numbered, whatever runs them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedpkg.analytics.backend import COMPLETED, PENDING, Organization, Run
from fedpkg.analytics.node import Node


@dataclass(frozen=True)
class Task:
    """A task as it was created."""

    task_id: int
    input_: bytes
    organization_ids: tuple[int, ...]
    name: str
    description: str
    databases: tuple[str, ...]
    created_at: float


class Recorded:
    """The tasks of one caller: what all backends have in common.

    Args:
        node: that of the caller.
        now: the time at which tasks are created, which must be the same when the function is run again.
        most_tasks: a task beyond this number is refused; None: there is no limit.
        databases: the labels that the caller's own task names; its tasks name the same unless they say otherwise.
    """

    def __init__(
        self,
        node: Node,
        organizations: Sequence[Organization],
        *,
        image: str = "",
        databases: Sequence[str] = (),
        task_id: int = 0,
        now: float = 0.0,
        most_tasks: int | None = None,
    ) -> None:
        self.organization_id = node.organization_id
        self.node_id = node.node_id
        self.collaboration_id = node.collaboration_id
        self.task_id = task_id
        self.image = image
        self.databases = list(databases)
        self._organizations = {one.organization_id: one for one in organizations}
        self._now = now
        self._most_tasks = most_tasks
        self._tasks: list[Task] = []
        self._runs: dict[int, list[Run]] = {}  # of tasks that have ended
        self._first_run: list[int] = [1]  # the id of the first run of each task, and of the next one

    def organizations(self) -> Sequence[Organization]:
        return list(self._organizations.values())

    def create(
        self,
        input_: bytes,
        organization_ids: Sequence[int],
        *,
        name: str = "",
        description: str = "",
        databases: Sequence[str] | None = None,
    ) -> int:
        ids = tuple(organization_ids)
        known = self._organizations
        if strange := [one for one in ids if isinstance(one, bool) or one not in known]:
            there = ", ".join(f"{one.organization_id} ({one.name})" for one in list(known.values())[:10])
            raise ValueError(f"there is no organization {strange[0]!r}; there are: {there}{' …' * (len(known) > 10)}")
        if twice := [one for one, times in Counter(ids).items() if times > 1]:
            raise ValueError(f"organization {twice[0]} ({known[twice[0]].name}) is named twice in one task")
        if self._most_tasks is not None and len(self._tasks) >= self._most_tasks:
            raise ValueError(
                f"the function creates more than {self._most_tasks} tasks; strategy.most_tasks (--most-tasks) is the "
                "limit"
            )
        labels = self.databases if databases is None else databases
        task_id = len(self._tasks) + 1
        self._tasks.append(Task(task_id, bytes(input_), ids, name, description, tuple(labels), self._now))
        self._first_run.append(self._first_run[-1] + len(ids))
        if not ids:
            self._runs[task_id] = []
        return task_id

    def run(self) -> None:
        raise NotImplementedError

    def has_ended(self, task_id: int) -> bool:
        return self._task(task_id).task_id in self._runs

    def runs(self, task_id: int) -> Sequence[Run]:
        task = self._task(task_id)
        return self._runs.get(task_id) or [
            self._run(task, place, PENDING) for place in range(len(task.organization_ids))
        ]

    def about(self, task_id: int) -> Mapping[str, Any]:
        task = self._task(task_id)
        return {
            "name": task.name,
            "description": task.description,
            "organizations": list(task.organization_ids),
            "databases": list(task.databases),
            "parent": self.task_id or None,
            "created_at": task.created_at,
        }

    def tasks(self) -> list[Task]:
        """All tasks, in the order of their creation."""
        return list(self._tasks)

    def left(self) -> list[Task]:
        """The tasks that have not ended."""
        return [one for one in self._tasks if one.task_id not in self._runs]

    def end(self, task: Task, ended: Sequence[tuple[str, bytes | None, str]]) -> None:
        """Note the status, result and log of all runs of a task, in the order of its organizations."""
        self._runs[task.task_id] = [self._run(task, place, *one) for place, one in enumerate(ended)]

    def _run(self, task: Task, place: int, status: str, result: bytes | None = None, log: str = "") -> Run:
        run_id = self._first_run[task.task_id - 1] + place
        result = result if status == COMPLETED else None
        return Run(run_id, task.task_id, task.organization_ids[place], status, result, log)

    def _task(self, task_id: int) -> Task:
        if isinstance(task_id, bool) or not isinstance(task_id, int) or not 0 < task_id <= len(self._tasks):
            raise KeyError(task_id)
        return self._tasks[task_id - 1]
