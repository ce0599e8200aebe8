"""One try of an order on this machine: staged, run by a keeper, its reply taken and checked, its state kept."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fedpkg.compute_package.command import shell_line
from fedpkg.devices import Slot
from fedpkg.dispatch.collect import collect, keep_logs
from fedpkg.dispatch.inputs import SlotInput
from fedpkg.dispatch.isolation import remark
from fedpkg.dispatch.keepers import Call, Keeper, KeeperGone, Outcome
from fedpkg.dispatch.limits import failure_of, says_forbidden
from fedpkg.dispatch.site import Job
from fedpkg.dispatch.staging import Environs, StagedTask, remove_leftovers, stage, startup
from fedpkg.dispatch.states import check_state, is_disarmed, seal
from fedpkg.dispatch.working_copies import WorkingCopies
from fedpkg.errors import DispatchError, FedpkgError, NotIsolated
from fedpkg.files import NO_SPACE, is_full, remove_tree, tree_checksum
from fedpkg.log import event
from fedpkg.replies.reading import Checked
from fedpkg.types import ReplyKind
from fedpkg.waist.answer import Answer, Failure, Refused, ReplyFile, Status, Usage
from fedpkg.waist.place import STARTUP

logger = logging.getLogger("fedpkg.dispatch")


class NotAlone(Exception):
    """A task must run again on files of its own: somebody wrote to what it shared with others, or it may not."""


class Launcher(Protocol):
    """How commands become processes: the one thing in which local executors differ.

    With ``isolated`` its keepers are for isolated tasks, and for no others.
    """

    isolated: bool

    @property
    def is_warming(self) -> bool:
        """Whether a task waits for an interpreter that is still doing its imports."""
        ...

    def prepare(self, job: Job, staged: StagedTask) -> tuple[str, Call]:
        """What to run for a task, and the key of the zygote whose keeper shall run it."""
        ...

    def keeper(self, key: str) -> Keeper:
        """A new keeper of that zygote."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Step:
    """A call of a task: its entry point's, or that of the ``startup`` before it."""

    job: Job
    appended: tuple[str, ...]
    key: str
    call: Call


class Disk:
    """Notes when it was full: a task may have failed for that, and another one has made room before it is looked at."""

    def __init__(self) -> None:
        self._full_at = -math.inf

    def look(self, folder: Path) -> None:
        """Call it before a task's files are removed."""
        if is_full(folder):
            self._full_at = time.monotonic()

    def was_full(self, folder: Path, *, since: float) -> bool:
        """Whether it is full, or was seen to be since a time of the monotonic clock."""
        self.look(folder)
        return self._full_at >= since


@dataclass(frozen=True)
class InSlot:
    """How a task's steps ran in a slot.

    Args:
        sent_at: when the slot was there.
        ended_at: when the last step that ran had ended.
        input: gave the task its input; None: it has a copy of its own.
        left_input: whether the task left that as it was.
    """

    sent_at: float
    ended_at: float
    input: SlotInput | None = None
    left_input: bool = True


@dataclass
class Tools:
    """What a try needs of its executor.

    Args:
        run: runs steps one after the other in a slot, until one fails.
    """

    slot: Slot
    launcher: Launcher
    copies: WorkingCopies
    environs: Environs
    disk: Disk
    run: Callable[[Job, list[Step], Callable[[Step, Outcome], bool]], InSlot]
    is_cancelled: Callable[[Job], bool]


@dataclass
class Attempt:
    """A try of a job. ``private``: on files that no other task has. ``is_last``: a keeper that is lost is a failure."""

    job: Job
    tools: Tools
    private: bool = False
    is_last: bool = False
    outcome: Outcome | None = None
    command: str = ""
    failure: Failure | None = None
    phases: dict[str, float] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)  # of all its calls
    started_at: float = field(default_factory=time.time)
    started: float = field(default_factory=time.monotonic)

    def run(self) -> Answer:
        """What became of it.

        Raises:
            NotAlone: it must run again, by itself.
            KeeperGone: it must run again.
        """
        self.command = self.job.command
        try:
            return self._run()
        except Refused as refusal:
            return self._failed(refusal.failure)
        except (KeeperGone, DispatchError, OSError, RecursionError) as error:
            if self.tools.is_cancelled(self.job):
                return self._ended("cancelled")
            if isinstance(error, KeeperGone) and not self.is_last:
                raise
            return self._failed(failure_of_ours(error))

    def _run(self) -> Answer:
        steps = self._staged()
        staged_at = time.monotonic()
        ran = self.tools.run(self.job, steps, self._goes_on)
        self.tools.disk.look(self.job.place.folder)
        outcome = self.outcome
        assert outcome is not None
        self.phases = {"stage": staged_at - self.started, **_phases(outcome, sent=ran.sent_at, received=ran.ended_at)}
        self.started += ran.sent_at - staged_at  # to wait for a slot is no part of a task's time
        if outcome.ending == "cancelled" or (outcome.ending != "exit" and self.tools.is_cancelled(self.job)):
            return self._ended("cancelled")
        if not ran.left_input:
            raise Refused("wrote_input", "it changed its read-only input file")
        self._check_alone(outcome)
        if self.failure is not None:
            return self._failed(self.failure)
        answer = self._answered(ran)
        self._give_input_back(ran)
        return answer

    def _staged(self) -> list[Step]:
        job, tools = self.job, self.tools
        staged = stage(job, tools.slot, tools.copies, tools.environs, private=self.private)
        calls = [(job, staged)]
        if job.order.starts_up and STARTUP in job.package.spec.entry_points:
            calls.insert(0, startup(job, staged))
        if (job.order.isolation is not None) != tools.launcher.isolated:
            kind = "isolated" if tools.launcher.isolated else "other"
            raise NotIsolated(f"this executor is for {kind} tasks only")
        return [Step(call, files.appended, *tools.launcher.prepare(call, files)) for call, files in calls]

    def _goes_on(self, step: Step, outcome: Outcome) -> bool:
        """A call has ended: does the task go on?"""
        self.command, self.outcome = shell_line(step.job.command, step.appended), outcome
        self.usage = _with(self.usage, outcome)
        keep_logs(step.call, outcome)
        self.failure = _failure(step.job, outcome)
        return self.failure is None

    def _check_alone(self, outcome: Outcome) -> None:
        """Raises NotAlone: something that the task shared with others was written to, or had to be."""
        job, copies = self.job, self.tools.copies
        if not copies.is_as_given(job):
            raise NotAlone("a task changed a big file of the package, which tasks share")
        if self.failure is not None and copies.has_links(job) and says_forbidden(outcome):
            raise NotAlone("it failed, perhaps because big files of its package are read-only")

    def _answered(self, ran: InSlot) -> Answer:
        """The answer of a task whose calls went well; its reply is out of its reach, and as it was asked."""
        job = self.job
        reply, checked = take_reply(job)
        keeps_state = not self.tools.copies.take_back(job)
        if keeps_state:
            check_state(job)
            if job.order.is_for_all:
                seal(job)
        state = job.place.version.name if keeps_state else None
        state_checksum = tree_checksum(job.place.version) if keeps_state else ""
        self.phases["collect"] = time.monotonic() - ran.ended_at
        return self._ended("ok", reply=reply, checked=checked, state=state, state_checksum=state_checksum)

    def _give_input_back(self, ran: InSlot) -> None:
        """A task that is ok needs its input no more; one that failed keeps it, to be repeated by hand."""
        try:
            if ran.input is None:
                self.job.place.input.unlink(missing_ok=True)
            else:
                ran.input.release(self.job)
            self.job.place.input_metadata.unlink(missing_ok=True)
        except OSError:
            pass  # the task put something else in its place

    def _failed(self, failure: Failure) -> Answer:
        fills = failure.kind in ("file_size", "folder_size", "folder_files")
        if not fills and self.tools.disk.was_full(self.job.place.folder, since=self.started):
            failure = Failure("no_space", failure.message)
        self.failure = failure
        return self._ended("failed", fills=fills)

    def _ended(
        self,
        status: Status,
        *,
        reply: ReplyFile | None = None,
        checked: Checked | None = None,
        state: str | None = None,
        state_checksum: str = "",
        fills: bool = False,
    ) -> Answer:
        job, outcome = self.job, self.outcome
        self._tidy_up(status, fills=fills)
        wall_s = time.monotonic() - self.started
        tail = "" if outcome is None else (outcome.stderr_tail.strip() or outcome.stdout_tail.strip())
        failure = self.failure if status == "failed" else None
        self._log(status, failure, wall_s)
        checked = checked or Checked({})
        return Answer(
            task_id=job.task_id,
            status=status,
            failure=failure,
            reply=reply,
            num_examples=checked.num_examples,
            metadata=dict(checked.metadata),
            metrics=checked.metrics,
            converted=checked.converted,
            state=state,
            state_checksum=state_checksum,
            exit_code=None if outcome is None else outcome.exit_code,
            signal=None if outcome is None else outcome.signal,
            command=self.command,
            log_tail=tail,
            folder=job.folder_name,
            started_at=self.started_at,
            wall_s=wall_s,
            phases=self.phases,
            usage=self.usage,
        )

    def _tidy_up(self, status: Status, *, fills: bool) -> None:
        job = self.job
        if status != "ok":
            tidy(job, self.tools.copies.discard)
        if status == "cancelled" and self.outcome is None:  # it never ran
            tidy(job, remove_folder)
        else:
            tidy(job, lambda job: None if not fills and is_disarmed(job.place.folder) else remove_leftovers(job))

    def _log(self, status: Status, failure: Failure | None, wall_s: float) -> None:
        why = {} if failure is None else {"failure": failure.kind, "message": failure.message}
        event(logger, logging.DEBUG, f"task.{status}", task=self.job.task_id, seconds=wall_s, **why)
        if self.outcome is not None and self.outcome.imported:
            modules, took = ", ".join(self.outcome.imported), sum(self.outcome.imported.values())
            event(logger, logging.DEBUG, "task.imported", task=self.job.task_id, modules=modules, seconds=took)


def _with(usage: Usage, outcome: Outcome) -> Usage:
    """What calls used that ran one after the other."""
    if outcome.cpu_s is None:
        return usage
    peak = max(usage.peak_memory_bytes or 0, outcome.peak_memory_bytes or 0)
    return Usage(cpu_s=(usage.cpu_s or 0.0) + outcome.cpu_s, peak_memory_bytes=peak)


def take_reply(job: Job) -> tuple[ReplyFile | None, Checked]:
    """Take the reply of a task whose processes are gone, check it, and make of it what travels.

    Raises:
        Refused: it is not as asked.
    """
    if job.spec.kind is ReplyKind.NOTHING:
        return None, Checked({})
    taken = collect(job)
    path, size_bytes = taken.path, taken.size_bytes
    try:
        if job.spec.transforms:
            from fedpkg.replies.travel import encode

            path, checked = encode(job.reading, path, job.place.version, job.sent, seed=job.order.seed)
            size_bytes = path.stat().st_size
        else:
            checked = job.reading.check(path, job.sent)
    except (Refused, OSError):
        raise
    except Exception as error:  # whatever a client sent, it is that client's failure and not the session's
        logger.exception("task.unreadable task=%s", job.task_id)
        raise Refused("bad_file", f"its reply cannot be read: {type(error).__name__}: {error}") from error
    return ReplyFile(name=path.name, size_bytes=size_bytes, checksum=tree_checksum(path.parent)), checked


def remove_folder(job: Job) -> None:
    remove_tree(job.place.folder)


def tidy(job: Job, step: Callable[[Job], object]) -> None:
    """Remove something of a task that has ended. What cannot be removed stays: no row will ever name it."""
    try:
        step(job)
    except (OSError, RecursionError) as error:
        event(logger, logging.WARNING, "task.files_left", task=job.task_id, error=error)


def failure_of_ours(error: Exception) -> Failure:
    """What went wrong on our side of a task."""
    kind = "isolation" if isinstance(error, NotIsolated) else "executor"
    number = error.fields.get("errno") if isinstance(error, FedpkgError) else getattr(error, "errno", None)
    kind = "no_space" if number in NO_SPACE else kind
    return Failure(kind, error.message if isinstance(error, FedpkgError) else str(error) or type(error).__name__)


def _failure(job: Job, outcome: Outcome) -> Failure | None:
    """How a process can fail, before anyone looks at its reply."""
    order, place = job.order, job.place
    name = f"'{order.entry_point}'"
    if outcome.ending == "timeout":
        return Failure("timeout", f"{name} was ended after its time limit of {order.timeout_s:g} s")
    if outcome.survivors:
        return Failure("survivors", f"{name} left {outcome.survivors} processes that cannot be killed")
    if failure := failure_of(name, order.limits, outcome, (place.folder, place.version)):
        return failure
    if outcome.signal is not None:
        return Failure("signal", f"{name} was killed by {_signal_name(outcome.signal)} after {outcome.wall_s:.1f} s")
    if outcome.exit_code:
        why = remark(job, outcome.stderr_tail + outcome.stdout_tail)
        return Failure("exit_code", f"{name} exited with code {outcome.exit_code} after {outcome.wall_s:.1f} s{why}")
    return None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _phases(outcome: Outcome, *, sent: float, received: float) -> dict[str, float]:
    """Seconds of a call by what they were spent on; the finer split is there for warm Python only."""
    times = outcome.times
    phases = {"run": outcome.wall_s}
    if {"order_received", "script_started", "script_ended", "finished"} <= times.keys():
        phases = {
            "hand_over": times["order_received"] - sent,
            "set_up": times["script_started"] - times["order_received"],
            "script": times["script_ended"] - times["script_started"],
            "exit": times["ended"] - times["script_ended"],
        }
    return {**phases, "clean_up": times["cleaned"] - times["ended"], "hand_back": received - times["cleaned"]}
