"""One attempt of an order on this machine: stage it, run it in a keeper, check its reply, keep its state."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fedpkg.client.data import is_reference
from fedpkg.compute_package.algorithm import NOT_ALLOWED_CODE, SAID
from fedpkg.compute_package.algorithm import RUNNER as ALGORITHM_RUNNER
from fedpkg.compute_package.command import shell_line
from fedpkg.devices import Slot
from fedpkg.dispatch.collect import collect, keep_logs
from fedpkg.dispatch.inputs import SlotInput
from fedpkg.dispatch.isolation import remark
from fedpkg.dispatch.keepers import Call, Keeper, KeeperGone, Outcome
from fedpkg.dispatch.limits import failure_of, says_forbidden
from fedpkg.dispatch.site import Job, PackageOnDisk
from fedpkg.dispatch.staging import Environs, StagedTask, remove_leftovers, stage, startup
from fedpkg.dispatch.states import check_state, is_disarmed, seal
from fedpkg.dispatch.working_copies import WorkingCopies
from fedpkg.dispatch.zygotes import Zygote
from fedpkg.errors import DispatchError, FedpkgError, NotIsolated
from fedpkg.files import NO_SPACE, is_full, remove_tree, tree_checksum
from fedpkg.log import event
from fedpkg.replies.reading import Checked
from fedpkg.types import ReplyKind
from fedpkg.waist.answer import Answer, Failure, Refused, ReplyFile, Status, Usage
from fedpkg.waist.place import STARTUP

logger = logging.getLogger("fedpkg.dispatch")


class NotAlone(Exception):
    """A task must run again with private files: a file that tasks share was, or has to be, written to."""


class Launcher(Protocol):
    """How commands become processes: the only difference between local executors.

    With ``isolated`` its keepers run isolated tasks only.
    """

    isolated: bool

    @property
    def is_warming(self) -> bool:
        """Whether a task waits for an interpreter whose imports are not finished."""
        ...

    def prepare(self, job: Job, staged: StagedTask) -> tuple[str, Call]:
        """What to run for a task, and the key of the zygote whose keeper runs it."""
        ...

    def warm_program(self, package: PackageOnDisk, call: Call) -> tuple[Zygote, Call] | None:
        """See `LocalExecutor.warm_program`."""
        ...

    def keeper(self, key: str) -> Keeper:
        """Start a new keeper of that zygote."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Step:
    """One call of a task: of its entry point, or of ``startup`` before it."""

    job: Job
    command: str
    appended: tuple[str, ...]
    key: str
    call: Call


class Disk:
    """Remembers when the disk was full: a task may have failed because of it, though space was freed since."""

    def __init__(self) -> None:
        self._full_at = -math.inf

    def look(self, folder: Path) -> None:
        """Check the disk. Call this before a task's files are removed."""
        if is_full(folder):
            self._full_at = time.monotonic()

    def was_full(self, folder: Path, *, since: float) -> bool:
        """Whether the disk is full, or was found full after ``since`` (monotonic clock)."""
        self.look(folder)
        return self._full_at >= since


@dataclass(frozen=True)
class InSlot:
    """How a task's steps ran in a slot.

    Args:
        sent_at: when the task got the slot.
        ended_at: when the last step that ran had ended.
        input: the slot's copy of the input; None if the task has a private copy.
        left_input: whether the task left the input unchanged.
    """

    sent_at: float
    ended_at: float
    input: SlotInput | None = None
    left_input: bool = True


@dataclass
class Tools:
    """What an attempt needs from its executor.

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
    """One attempt of a job, if ``private`` with private files. In the last one, a lost keeper is the task's failure."""

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
        """Run the attempt.

        Raises:
            NotAlone: the task must run again with private files.
            KeeperGone: the task must run again.
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
        self.started += ran.sent_at - staged_at  # waiting for a slot does not count as the task's time
        if outcome.ending == "cancelled" or (outcome.ending != "exit" and self.tools.is_cancelled(self.job)):
            return self._ended("cancelled")
        if not ran.left_input:
            raise Refused("wrote_input", "the task changed its read-only input file")
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
            kind = "isolated" if tools.launcher.isolated else "non-isolated"
            raise NotIsolated(f"this executor runs {kind} tasks only")
        return [
            Step(call, files.command, files.appended, *tools.launcher.prepare(call, files)) for call, files in calls
        ]

    def _goes_on(self, step: Step, outcome: Outcome) -> bool:
        """Record how a call ended; whether the next call runs."""
        self.command, self.outcome = shell_line(step.command, step.appended), outcome
        self.usage = _with(self.usage, outcome)
        keep_logs(step.call, outcome)
        self.failure = _failure(step.job, outcome)
        return self.failure is None

    def _check_alone(self, outcome: Outcome) -> None:
        """Raise NotAlone if a file that tasks share was written to, or has to be."""
        job, copies = self.job, self.tools.copies
        if not copies.is_as_given(job):
            raise NotAlone("a task changed a big file of the package, which tasks share")
        if self.failure is not None and copies.has_links(job) and says_forbidden(outcome):
            raise NotAlone("a task failed, perhaps because big files of its package are read-only")

    def _answered(self, ran: InSlot) -> Answer:
        """The answer of a task whose calls succeeded, after its reply was moved out of its reach and checked."""
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
        """Remove the input of a successful task; a failed task keeps it, so that it can be repeated by hand."""
        try:
            if ran.input is None:
                self.job.place.input.unlink(missing_ok=True)
            else:
                ran.input.release(self.job)
            self.job.place.input_metadata.unlink(missing_ok=True)
        except OSError:
            pass  # the task replaced it

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
        if status == "cancelled" and self.outcome is None:  # the command never ran
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
    """The sum of what consecutive calls used."""
    if outcome.cpu_s is None:
        return usage
    peak = max(usage.peak_memory_bytes or 0, outcome.peak_memory_bytes or 0)
    return Usage(cpu_s=(usage.cpu_s or 0.0) + outcome.cpu_s, peak_memory_bytes=peak)


def take_reply(job: Job) -> tuple[ReplyFile | None, Checked]:
    """Take the reply of a task whose processes have ended, check it, and encode it for the transfer.

    Raises:
        Refused: the reply does not match its specification.
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
    except Exception as error:  # any fault of a reply is a failure of its client, not of the session
        logger.exception("task.unreadable task=%s", job.task_id)
        raise Refused("bad_file", f"its reply cannot be read: {type(error).__name__}: {error}") from error
    return ReplyFile(name=path.name, size_bytes=size_bytes, checksum=tree_checksum(path.parent)), checked


def remove_folder(job: Job) -> None:
    remove_tree(job.place.folder)


def tidy(job: Job, step: Callable[[Job], object]) -> None:
    """Remove files of a task that has ended. Files that cannot be removed stay: no row of the store will name them."""
    try:
        step(job)
    except (OSError, RecursionError) as error:
        event(logger, logging.WARNING, "task.files_left", task=job.task_id, error=error)


def failure_of_ours(error: Exception) -> Failure:
    """The failure of a task that fedpkg itself, not the task, has caused."""
    kind = "isolation" if isinstance(error, NotIsolated) else "executor"
    number = error.fields.get("errno") if isinstance(error, FedpkgError) else getattr(error, "errno", None)
    kind = "no_space" if number in NO_SPACE else kind
    return Failure(kind, error.message if isinstance(error, FedpkgError) else str(error) or type(error).__name__)


def _failure(job: Job, outcome: Outcome) -> Failure | None:
    """The failure that follows from how the process ended, before its reply is read."""
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
        tail = outcome.stderr_tail + outcome.stdout_tail
        said = _said_by_algorithm(job, outcome.stderr_tail)
        if said and outcome.exit_code == NOT_ALLOWED_CODE:
            return Failure("not_allowed", said)
        why = (said and f": {said}") + (remark(job, tail) or _about_data(job, tail))
        return Failure("exit_code", f"{name} exited with code {outcome.exit_code} after {outcome.wall_s:.1f} s{why}")
    return None


def _said_by_algorithm(job: Job, log: str) -> str:
    """What the program that calls an algorithm's functions says in the end about a call that has no result."""
    if f" -m {ALGORITHM_RUNNER} " not in job.command:
        return ""
    last = log.rstrip().rpartition("\n")[2]
    return last.removeprefix(SAID) if last.startswith(SAID) else ""


def _about_data(job: Job, log_tail: str) -> str:
    """An addition to the message of a failed task that tried to load a reference as if it were a file of arrays."""
    if "pickle" not in log_tail.lower() or job.data_path is None or not is_reference(job.data_path):  # NumPy, torch
        return ""
    return (
        "; its data is a reference, which fedpkg.client.open_data reads: set clients.data.form to files for a package "
        "that loads FEDN_DATA_PATH itself"
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _phases(outcome: Outcome, *, sent: float, received: float) -> dict[str, float]:
    """Seconds of a call by phase; warm Python calls have more phases."""
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
