"""Runs the tasks of a central function as requests of a session's coordinator.

All tasks that were created are sent at once, when the function first needs one of their results: one round of the
session. A task that wants tasks of its own (`fedpkg.analytics.nested`) is sent again when these have ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedpkg.analytics import eras
from fedpkg.analytics.backend import COMPLETED, CRASHED, FAILED, KILLED, NOT_ALLOWED, Organization
from fedpkg.analytics.guard import LEAST
from fedpkg.analytics.node import Node
from fedpkg.analytics.noted import WARNINGS, noted
from fedpkg.analytics.policy import NotAllowed
from fedpkg.analytics.recorded import Recorded, Task
from fedpkg.client.coordinator import Failure, Replies, Reply, Request, SessionEnded, Step
from fedpkg.client.records import Records

ENTRY_POINT = "partial"
ENDED = "ended"  # the reason that is committed with the last round
DEEPEST = 8  # levels of tasks that create tasks
_AT_ONCE = 500  # requests in one message
_STATUSES = {
    "exit_code": FAILED,
    "not_allowed": NOT_ALLOWED,
    "timeout": KILLED,
    "round_timeout": KILLED,
    "bad_file": FAILED,
    "no_file": FAILED,
}


@dataclass
class _Job:
    """A task at one organization: what it is sent, and how it ended."""

    input_: bytes
    organization_id: int
    databases: Sequence[str]
    name: str
    task_id: int
    asked: int = 1  # organizations that the same is asked of
    method: str = ""
    depth: int = 1
    creator: int | None = None  # the organization whose function has created the task; None: the host's
    least: int = 1  # organizations that must have a result, by the policy of this one's node
    answers: list[list[_Job]] = field(default_factory=list)  # of the tasks that it wanted
    ended: tuple[str, bytes | None, str] | None = None

    @property
    def result(self) -> bytes | None:
        return None if self.ended is None else self.ended[1]

    @property
    def is_ready(self) -> bool:
        return self.ended is None and all(one.ended is not None for each in self.answers for one in each)


class Coordinated(Recorded):
    """The backend of a central function.

    Args:
        rounds: those of `fedpkg.client.coordinator`.
        step: the first of them.
        clients: the id of the client of each organization, by its id.
        aggregates: whether a function gets the results; otherwise the person who runs it sees that of each
            organization, and none is one of several in an aggregate.

    Attributes:
        failures: which tasks have no result at which organization, and why.
    """

    def __init__(
        self,
        rounds: Iterator[Step],
        step: Step,
        node: Node,
        organizations: Sequence[Organization],
        clients: dict[int, str],
        *,
        image: str = "",
        databases: Sequence[str] = (),
        most_tasks: int | None = None,
        allow_pickle: bool = False,
        aggregates: bool = True,
    ) -> None:
        super().__init__(
            node, organizations, image=image, databases=databases, now=step.created_at, most_tasks=most_tasks
        )
        self._rounds = rounds
        self._step = step
        self._clients = clients
        self._allow_pickle = allow_pickle
        self._aggregates = aggregates
        self.failures: list[str] = []
        self._warned: set[str] = set()
        self._was_asked = False
        self._sent = 0

    def run(self) -> None:
        tasks = self.left()
        jobs = {one.task_id: self._jobs(one) for one in tasks}
        todo = [job for each in jobs.values() for job in each]
        while ready := [job for job in todo if job.is_ready]:
            for job in ready:
                for each in job.answers:
                    self._withhold(each)
            wanted = self._send(ready)
            self._note(ready)
            todo = [job for job in [*todo, *wanted] if job.ended is None]
        for task in tasks:
            self._withhold(jobs[task.task_id])
            self.end(task, [job.ended for job in jobs[task.task_id] if job.ended is not None])

    def finish(self) -> None:
        """End the session: the function has returned."""
        self._step.commit(finished=ENDED)

    def fail(self, reason: str) -> None:
        """End the session with an error."""
        self._step.fail(reason)

    def log(self, text: str) -> None:
        """Add a line to the session's log."""
        self._step.log(text)

    # ---- requests

    def _jobs(self, task: Task) -> list[_Job]:
        ids, method = task.organization_ids, _method(task.input_)
        asked = len(ids) if self._aggregates else 1
        return [_Job(task.input_, one, task.databases, task.name, task.task_id, asked, method) for one in ids]

    def _note(self, jobs: Sequence[_Job]) -> None:
        """Log why tasks have no result."""
        for job in jobs:
            if job.ended is not None and job.ended[2]:
                name = self._organizations[job.organization_id].name
                shown = name_of(job.name, job.input_)
                said = f"task {job.task_id}" + f" ({shown})" * bool(shown) + " > one of its own" * (job.depth > 1)
                self.failures.append(f"{name}, {said}: {job.ended[2]}")
                self.log(f"no result of {self.failures[-1]}")

    def _warn(self, name: str, warnings: Sequence[str]) -> None:
        """Log what an organization's calls warn of, each time for the first time."""
        for text in warnings:
            if (line := f"warning of {name}: {text}") not in self._warned:
                self._warned.add(line)
                self.log(line)

    def _withhold(self, jobs: Sequence[_Job]) -> None:
        """Drop the results of one task that would be an aggregate of fewer organizations than their nodes allow."""
        while True:
            number = sum(job.result is not None for job in jobs)
            few = [job for job in jobs if job.result is not None and job.least > number]
            if not few:
                return
            for job in few:
                why = f"{job.method} has results of {number} organizations, and must have of {job.least} or more"
                job.ended = (NOT_ALLOWED, None, f"not_allowed: {NotAllowed('minimum_organizations', why)}")
            self._note(few)

    def _send(self, jobs: Sequence[_Job]) -> list[_Job]:
        """Send tasks, note how they ended, and return the tasks that they want."""
        self._next_round()
        wanted: list[_Job] = []
        groups = _groups(jobs)
        for start in range(0, len(groups), _AT_ONCE):
            part = groups[start : start + _AT_ONCE]
            answers = self._step.ask(*(self._request(group) for group in part))
            for group, told in zip(part, answers, strict=True):
                wanted += self._take(group, told)
        return wanted

    def _next_round(self) -> None:
        if self._was_asked:
            self._step.commit()
            step = next(self._rounds, None)
            if step is None:
                raise SessionEnded("the session has ended")
            self._step = step
        self._was_asked = True

    def _request(self, jobs: Sequence[_Job]) -> Request:
        """One request for tasks at different organizations. Equal payloads are one object, and written once."""
        known: dict[Any, Records] = {}
        payloads = {}
        for job in jobs:
            same = (job.input_, tuple(job.databases), job.task_id, job.asked, job.creator)
            key = id(job) if job.answers else same
            if key not in known:
                known[key] = self._payload(job)
            payloads[self._clients[job.organization_id]] = known[key]
        is_shared = len(known) == 1
        return Request(
            entry_point=ENTRY_POINT,
            clients=list(payloads),
            reply_kind="records",
            parameters={"method": jobs[0].method},
            payload=next(iter(payloads.values())) if is_shared else None,
            payloads={} if is_shared else payloads,
            required=0,
        )

    def _payload(self, job: _Job) -> Records:
        answers, results = [], {}
        for number, each in enumerate(job.answers):
            told = []
            for place, one in enumerate(each):
                assert one.ended is not None
                status, result, log = one.ended
                told.append({"status": status, "log": log})
                if result is not None:
                    results[f"{number}-{place}"] = _array(result)
            answers.append(told)
        about = {
            "task_id": job.task_id,
            "databases": list(job.databases),
            "organizations": [
                {"organization_id": one.organization_id, "name": one.name, "attributes": dict(one.attributes)}
                for one in self.organizations()
            ],
            "image": self.image,
            "asked": job.asked,
            "creator": [] if job.creator is None else [self._organizations[job.creator].name, str(job.creator)],
            "allow_pickle": self._allow_pickle,
            "most_tasks": self._most_tasks,
            "created_at": self._now,
            "answers": answers,
        }
        sets = {"task": {"input": _array(job.input_)}, **({"answers": results} if results else {})}
        return Records(sets, about)

    # ---- replies

    def _take(self, jobs: Sequence[_Job], told: Replies) -> list[_Job]:
        found = {one.client_id: one for one in told}
        wanted: list[_Job] = []
        for job in jobs:
            client_id = self._clients[job.organization_id]
            if client_id in found:
                wanted += self._ended(job, found[client_id])
            else:
                job.ended = self._failed(told.failures.get(client_id))
        return wanted

    def _ended(self, job: _Job, reply: Reply) -> list[_Job]:
        records = reply.records()
        about = records.data if isinstance(records.data, dict) else {}
        self._warn(self._organizations[job.organization_id].name, noted(about.get(WARNINGS)))
        if "wants" in about:
            try:
                return self._wanted(job, about["wants"], records)
            except (KeyError, TypeError, ValueError, AttributeError):  # the node can write anything
                job.ended = (FAILED, None, "the reply wants tasks in a form that cannot be read")
                return []
        try:
            job.ended = (COMPLETED, records.sets["task"]["result"].tobytes(), "")
            job.least = int(about.get(LEAST, 1))
        except (KeyError, AttributeError, TypeError, ValueError):
            job.ended = (FAILED, None, "the reply has no result")
        return []

    def _wanted(self, job: _Job, wants: Sequence[dict[str, Any]], records: Records) -> list[_Job]:
        """The tasks that a task wants: from now on it waits for them."""
        if job.depth >= DEEPEST:
            job.ended = (FAILED, None, f"tasks that create tasks are {DEEPEST} levels deep, the most that is allowed")
            return []
        if not wants:
            raise ValueError("it wants no task, and would be sent again for ever")
        found: list[_Job] = []
        for number, one in enumerate(wants):
            self._sent += 1
            if self._most_tasks is not None and self._sent > self._most_tasks:
                job.ended = (FAILED, None, f"its tasks create more than {self._most_tasks} tasks (strategy.most_tasks)")
                return []
            data = records.sets["inputs"][str(number)].tobytes()
            ids = list(dict.fromkeys(each for each in one["organizations"] if each in self._clients))
            labels, name = [str(each) for each in one["databases"]], str(one["name"])
            given = (labels, name, job.task_id, len(ids), _method(data), job.depth + 1, job.organization_id)
            each = [_Job(data, place, *given) for place in ids]
            job.answers.append(each)
            found += each
        return found

    @staticmethod
    def _failed(failure: Failure | None) -> tuple[str, bytes | None, str]:
        if failure is None:
            return FAILED, None, "the organization was not asked"
        return _STATUSES.get(failure.word, CRASHED), None, f"{failure.word}: {failure.text}"


def _groups(jobs: Sequence[_Job]) -> list[list[_Job]]:
    """The fewest requests for these tasks: an organization is once in each, and all call the same function."""
    groups: dict[tuple[str, int], list[_Job]] = {}
    times: Counter[tuple[str, int]] = Counter()
    for job in jobs:
        number = times[job.method, job.organization_id]
        times[job.method, job.organization_id] += 1
        groups.setdefault((job.method, number), []).append(job)
    return list(groups.values())


def _method(input_: bytes) -> str:
    """The function that an input asks for; nothing, if that cannot be said without running a pickle."""
    try:
        return "" if eras.is_pickle(input_) else eras.asked_of(input_).method
    except Exception:  # the task itself will fail, and say why
        return ""


def name_of(name: str, input_: bytes) -> str:
    """The function that a task calls; if its input cannot be read, the name that the algorithm has given the task."""
    return _method(input_) or name


def _array(data: bytes) -> Any:
    import numpy as np

    return np.frombuffer(data, np.uint8)
