"""What runs an entry point on this machine: stage, run through a keeper, collect.

Executors differ only in how warm it is.
"""

from __future__ import annotations

import dataclasses
import logging
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from fedpkg.devices import Gpu, Slot
from fedpkg.dispatch.base import Failure, Task, TaskResult
from fedpkg.dispatch.collect import Refused, Reply, collect, keep_logs
from fedpkg.dispatch.command import shell_line
from fedpkg.dispatch.isolation import Walls, remark
from fedpkg.dispatch.keepers import Call, Keeper, KeeperGone, Outcome
from fedpkg.dispatch.limits import failure_of, says_forbidden
from fedpkg.dispatch.package_files import PackageFiles
from fedpkg.dispatch.staging import STARTUP, SharedModels, StagedTask, input_path, remove_leftovers, stage, startup
from fedpkg.dispatch.states import check_state, is_disarmed
from fedpkg.dispatch.travel import travelled
from fedpkg.dispatch.working_copies import WorkingCopies
from fedpkg.errors import DispatchError, FedpkgError, NotIsolated
from fedpkg.files import NO_SPACE, is_full, remove_tree, tree_checksum
from fedpkg.formats.metadata import metadata_path
from fedpkg.log import event

logger = logging.getLogger("fedpkg.dispatch")
LOST_TRIES = 3  # of a task whose keeper is killed from outside each time; then that is recorded as the client's failure
AGAIN = ".again-"  # in the names of the folders of a task that is run again (stores/leftovers.py knows it too)


class _NotAlone(Exception):
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

    def prepare(self, task: Task, staged: StagedTask) -> tuple[str, Call]:
        """What to run for a task, and the key of the zygote whose keeper shall run it."""
        ...

    def keeper(self, key: str) -> Keeper:
        """A new keeper of that zygote."""
        ...

    def close(self) -> None: ...


@dataclass
class _Slot:
    """Runs one task at a time, with a keeper of its own for each zygote it has used."""

    keepers: dict[str, Keeper] = field(default_factory=dict)
    running: str | None = None  # task id
    keeper: Keeper | None = None  # that runs it


class _Lane:
    """Slots that see the same GPUs, or none: to a task they are all alike. Tasks get them in the order they came."""

    def __init__(self, place: Slot) -> None:
        self.place = place
        self.free: list[_Slot] = []
        self._turns: list[object] = []  # of tasks that have no slot yet
        self._changed = threading.Condition()

    def line_up(self) -> object:
        """A turn, for `slot`."""
        turn = object()
        with self._changed:
            self._turns.append(turn)
        return turn

    @contextmanager
    def slot(self, turn: object, is_cancelled: Callable[[], bool]) -> Iterator[_Slot]:
        """Wait for one's turn and a free slot, and have it.

        Raises:
            DispatchError: the task has been cancelled meanwhile.
        """
        with self._changed:
            self._changed.wait_for(lambda: is_cancelled() or (bool(self.free) and self._turns[0] is turn))
            if is_cancelled():
                raise DispatchError("cancelled")
            slot = self.free.pop(0)
        self.leave(turn)
        try:
            yield slot
        finally:
            with self._changed:
                self.free.append(slot)
                self._changed.notify_all()

    def look_again(self) -> None:
        """Tasks have been cancelled."""
        with self._changed:
            self._changed.notify_all()

    def leave(self, turn: object) -> None:
        """Its task needs no slot, or has one."""
        with self._changed:
            if turn in self._turns:
                self._turns.remove(turn)
                self._changed.notify_all()


class LocalExecutor:
    """Runs tasks on this machine, as many at a time as there are ``slots``, each in processes of its own.

    There are two threads for each slot: while one waits for its task, the other one checks what the last task wrote,
    and lays out the next. Only where the slots are not alike there is one for each: no task shall have been laid out
    for a slot that is busy while another one is free.

    ``folder`` takes the input models and working copies that tasks share or may use again.
    """

    def __init__(self, launcher: Launcher, *, slots: Sequence[Slot], folder: Path) -> None:
        self._launcher = launcher
        self._queue: queue.SimpleQueue[tuple[Task, Future[TaskResult]] | None] = queue.SimpleQueue()
        self._known: set[str] = set()  # ids of tasks that have no result yet
        self._cancelled: set[str] = set()
        self._lock = threading.Lock()
        self._taking = threading.Lock()
        self._closing = False
        self._models = SharedModels(folder / "models")
        self._copies = WorkingCopies(folder / "copies", PackageFiles(folder / "package"))
        self._walls = Walls(folder / "walls") if launcher.isolated else None
        self._slots = [_Slot() for _ in slots]
        lanes: dict[tuple[Gpu, ...], _Lane] = {}
        for slot, place in zip(self._slots, slots, strict=True):
            lanes.setdefault(place.gpus, _Lane(place)).free.append(slot)
        self._lanes = list(lanes.values())
        ahead = 2 if len(lanes) == 1 else 1
        self._threads = [
            threading.Thread(target=self._work, args=(lane,), name=f"fedpkg-task-{number}", daemon=True)
            for number, lane in enumerate([lane for lane in self._lanes for _ in range(ahead * len(lane.free))])
        ]
        for thread in self._threads:
            thread.start()

    @property
    def slots(self) -> int:
        return len(self._slots)

    @property
    def is_warming(self) -> bool:
        return self._launcher.is_warming

    def submit(self, task: Task) -> Future[TaskResult]:
        future: Future[TaskResult] = Future()
        future.set_running_or_notify_cancel()  # tasks are cancelled by `cancel`, so that they always get a result
        with self._lock:
            if self._closing:
                raise DispatchError("this executor is closed")
            self._known.add(task.task_id)
            self._queue.put((task, future))
        return future

    def cancel(self, task_id: str) -> None:
        with self._lock:
            if task_id not in self._known:
                return
            self._cancelled.add(task_id)
            for slot in self._slots:
                if slot.running == task_id and slot.keeper is not None:
                    slot.keeper.cancel()
        for lane in self._lanes:
            lane.look_again()

    def close(self) -> None:
        with self._lock:
            if self._closing:
                return
            self._closing = True
            for slot in self._slots:
                if slot.keeper is not None:
                    slot.keeper.cancel()
        for lane in self._lanes:
            lane.look_again()
        for _ in self._threads:
            self._queue.put(None)
        self._launcher.close()
        for thread in self._threads:
            thread.join()
        self._models.clear()
        self._copies.clear()
        if self._walls is not None:
            self._walls.clear()
        while True:  # what no thread took
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if item is not None:
                item[1].set_result(TaskResult(item[0], "cancelled"))

    def _work(self, lane: _Lane) -> None:
        while True:
            with self._taking:  # so that tasks line up in the order in which they are taken
                item = self._queue.get()
                turn = lane.line_up()
            if item is None:
                lane.leave(turn)
                return
            task, future = item
            result: TaskResult | BaseException
            try:
                result = self._run(lane, turn, task)
            except BaseException as error:  # a fault of fedpkg: the controller must see it
                result = error
            finally:
                lane.leave(turn)
            with self._lock:
                self._known.discard(task.task_id)
                self._cancelled.discard(task.task_id)
            if isinstance(result, TaskResult):
                future.set_result(result)
            else:
                future.set_exception(result)
            if self._walls is not None:
                self._walls.sweep(task)
            del item, future, result  # while this thread waits, nothing of it shall stay in memory

    def _is_cancelled(self, task: Task) -> bool:
        return self._closing or task.task_id in self._cancelled

    def _run(self, lane: _Lane, turn: object, task: Task) -> TaskResult:
        if self._is_cancelled(task):
            return TaskResult(task, "cancelled")
        given, tries, lost, private = task, 1, 0, False
        while True:
            for folder in (task.folder, task.next_state):
                if folder.exists():  # and is not to be cleared away below, should the task fail
                    raise DispatchError(f"task {task.task_id}: {folder} exists; each attempt needs folders of its own")
            try:
                return self._attempt(lane, turn, task, private=private, is_last=lost == LOST_TRIES - 1)
            except _NotAlone as not_alone:
                private, reason = True, str(not_alone)
            except KeeperGone as gone:
                lost, reason = lost + 1, str(gone)
            finally:
                lane.leave(turn)
            self._clear_away(task)
            event(logger, logging.WARNING, "task.again", task=task.task_id, reason=reason)
            # In another place: what a killed keeper watched over is killed too, but nothing tells when it has ended.
            folder = given.folder.with_name(f"{given.folder.name}{AGAIN}{tries}")
            next_state = given.next_state.with_name(f"{given.next_state.name}{AGAIN}{tries}")
            task, tries = dataclasses.replace(given, folder=folder, next_state=next_state), tries + 1
            turn = lane.line_up()

    def _clear_away(self, task: Task) -> None:
        """Remove what is left of a try that does not count. The next holder of the home's lock removes what stays."""
        self._give_back(task)
        _tidy(task, _remove_folder)

    def _give_back(self, task: Task) -> None:
        """Give back the input and the working copy of a task that keeps neither."""
        _tidy(task, self._models.release)
        _tidy(task, self._copies.discard)

    def _attempt(self, lane: _Lane, turn: object, task: Task, *, private: bool, is_last: bool) -> TaskResult:
        clock = time.monotonic
        started_at, started = time.time(), clock()
        phases: dict[str, float] = {}
        outcome: Outcome | None = None
        command = task.package.spec.entry_point(task.entry_point).command
        try:
            staged = stage(task, lane.place, self._models, self._copies, private=private)
            steps = [(task, staged)]
            if task.starts_up and STARTUP in task.package.spec.entry_points:
                steps.insert(0, startup(task, staged))
            if (task.isolation is not None) != self._launcher.isolated:
                kind = "isolated" if self._launcher.isolated else "other"
                raise NotIsolated(f"this executor is for {kind} tasks only")
            calls = [(step, place.appended, *self._launcher.prepare(step, place)) for step, place in steps]
            staged_at = clock()
            stage_s = staged_at - started
            with lane.slot(turn, lambda: self._is_cancelled(task)) as slot:
                sent_at = clock()
                started += sent_at - staged_at  # to wait for a slot is no part of a task's time
                for step, appended, key, call in calls:
                    command = shell_line(step.package.spec.entry_point(step.entry_point).command, appended)
                    outcome = self._run_call(slot, step, key, call)
                    keep_logs(call, outcome)
                    if failure := _failure(step, outcome):
                        break
            assert outcome is not None
            ran_at = clock()
            phases = {"stage": stage_s, **_phases(outcome, sent=sent_at, received=ran_at)}
            if outcome.ending == "cancelled" or (outcome.ending != "exit" and self._is_cancelled(task)):
                return self._ended(task, "cancelled", command, outcome, started_at, clock() - started, phases)
            if not self._models.is_as_given(task):
                if private:
                    raise Refused("wrote_input", "it changed its read-only input file")
                self._models.release(task)
                raise _NotAlone("a task wrote to the shared input")
            if not self._copies.is_as_given(task):
                raise _NotAlone("a task changed a big file of the package, which tasks share")
            if failure is not None and self._copies.has_links(task) and says_forbidden(outcome):
                raise _NotAlone("it failed, perhaps because big files of its package are read-only")
            if failure is not None:
                return self._ended(task, "failed", command, outcome, started_at, clock() - started, phases, failure)
            reply = _collect(task, staged.out)
            keeps_state = not self._copies.take_back(task)
            if keeps_state:
                check_state(task)
            reply_checksum = "" if task.request_id is None else tree_checksum(reply.path.parent)
            state_checksum = tree_checksum(task.next_state) if keeps_state else ""
        except Refused as refusal:
            return self._ended(task, "failed", command, outcome, started_at, clock() - started, phases, refusal.failure)
        except (KeeperGone, DispatchError, OSError, RecursionError) as error:
            if self._is_cancelled(task):
                return self._ended(task, "cancelled", command, outcome, started_at, clock() - started, phases)
            if isinstance(error, KeeperGone) and not is_last:
                raise
            kind = "isolation" if isinstance(error, NotIsolated) else "executor"
            kind = "no_space" if isinstance(error, OSError) and error.errno in NO_SPACE else kind
            message = error.message if isinstance(error, FedpkgError) else str(error) or type(error).__name__
            failure = Failure(kind, message)
            return self._ended(task, "failed", command, outcome, started_at, clock() - started, phases, failure)
        phases["collect"] = clock() - ran_at
        try:
            self._models.release(task, remove=True)  # a failed task keeps its input, to be repeated by hand
            metadata_path(input_path(task)).unlink(missing_ok=True)
        except OSError:
            pass  # the task put something else in its place
        result = self._ended(
            task, "ok", command, outcome, started_at, clock() - started, phases, reply=reply, keeps_state=keeps_state
        )
        return dataclasses.replace(result, reply_checksum=reply_checksum, state_checksum=state_checksum)

    def _run_call(self, slot: _Slot, task: Task, key: str, call: Call) -> Outcome:
        if self._walls is None:
            return self._call(slot, task, key, call)
        call = self._walls.confine(call, task)  # only now: the call before it could write where this is prepared
        try:
            return self._call(slot, task, key, call)
        finally:
            self._walls.put_back(task, call)

    def _call(self, slot: _Slot, task: Task, key: str, call: Call) -> Outcome:
        for last_try in (False, False, True):
            may_have_begun = False
            try:
                keeper = self._start(slot, task, key, call)
                try:
                    return keeper.outcome()
                except KeeperGone as gone:
                    may_have_begun = not gone.unread
                    keeper.close()
                    raise
                finally:
                    with self._lock:
                        slot.running = slot.keeper = None
            except KeeperGone:  # somebody ended it, then perhaps its zygote: that is not this task's fault
                if last_try or may_have_begun:
                    raise
        raise AssertionError("the last try returns or raises")

    def _start(self, slot: _Slot, task: Task, key: str, call: Call) -> Keeper:
        keeper = slot.keepers.get(key)
        if keeper is None or keeper.closed:
            keeper = slot.keepers[key] = self._launcher.keeper(key)
        try:
            with self._lock:  # so that a cancel comes before the order (and stops it here) or after it, at the keeper
                if self._is_cancelled(task):
                    raise DispatchError("cancelled")
                keeper.start(call)
                slot.running, slot.keeper = task.task_id, keeper
                return keeper
        except KeeperGone:
            keeper.close()  # so that a new one takes its place
            raise

    def _ended(
        self,
        task: Task,
        status: Literal["ok", "failed", "cancelled"],
        command: str,
        outcome: Outcome | None,
        started_at: float,
        wall_s: float,
        phases: dict[str, float],
        failure: Failure | None = None,
        *,
        reply: Reply | None = None,
        keeps_state: bool = False,
    ) -> TaskResult:
        fills = failure is not None and failure.kind in ("file_size", "folder_size", "folder_files")
        if failure is not None and not fills and is_full(task.folder):  # looked at now: below, room is made
            failure = Failure("no_space", failure.message)
        if status != "ok":
            self._give_back(task)
        if status == "cancelled" and outcome is None:  # it never ran
            _tidy(task, _remove_folder)
        else:
            _tidy(task, lambda task: None if not fills and is_disarmed(task.folder) else remove_leftovers(task))
        tail = "" if outcome is None else (outcome.stderr_tail.strip() or outcome.stdout_tail.strip())
        event(
            logger,
            logging.DEBUG,
            f"task.{status}",
            task=task.task_id,
            seconds=wall_s,
            **({} if failure is None else {"failure": failure.kind, "message": failure.message}),
        )
        if outcome is not None and outcome.imported:
            modules = ", ".join(outcome.imported)
            took = sum(outcome.imported.values())
            event(logger, logging.DEBUG, "task.imported", task=task.task_id, modules=modules, seconds=took)
        return TaskResult(
            task,
            status,
            failure=failure,
            reply=None if reply is None else reply.path,
            reply_bytes=0 if reply is None else reply.size_bytes,
            sent_bytes=None if reply is None else reply.sent_bytes,
            converted=None if reply is None else reply.converted,
            weights=None if reply is None else reply.weights,
            sets={} if reply is None else reply.sets,
            num_examples=None if reply is None else reply.num_examples,
            metadata={} if reply is None else reply.metadata,
            metrics=None if reply is None else reply.metrics,
            exit_code=None if outcome is None else outcome.exit_code,
            signal=None if outcome is None else outcome.signal,
            command=command,
            log_tail=tail,
            keeps_state=keeps_state,
            started_at=started_at,
            wall_s=wall_s,
            phases=phases,
        )


def _remove_folder(task: Task) -> None:
    remove_tree(task.folder)


def _tidy(task: Task, step: Callable[[Task], object]) -> None:
    """Remove something of a task that has ended. What cannot be removed stays: no row will ever name it."""
    try:
        step(task)
    except (OSError, RecursionError) as error:
        event(logger, logging.WARNING, "task.files_left", task=task.task_id, error=error)


def _collect(task: Task, out: Path) -> Reply:
    try:
        reply = collect(task, out)
        return reply if task.transforms is None else travelled(task, reply, task.transforms)
    except (Refused, OSError):
        raise
    except Exception as error:  # whatever a client sent, it is that client's failure and not the session's
        logger.exception("task.unreadable task=%s", task.task_id)
        raise Refused("bad_file", f"its reply cannot be read: {type(error).__name__}: {error}") from error


def _failure(task: Task, outcome: Outcome) -> Failure | None:
    """How a process can fail, before anyone looks at its reply."""
    name = f"'{task.entry_point}'"
    if outcome.ending == "timeout":
        return Failure("timeout", f"{name} was ended after its time limit of {task.timeout_s:g} s")
    if outcome.survivors:
        return Failure("survivors", f"{name} left {outcome.survivors} processes that cannot be killed")
    if failure := failure_of(name, task.limits, outcome, (task.folder, task.next_state)):
        return failure
    if outcome.signal is not None:
        return Failure("signal", f"{name} was killed by {_signal_name(outcome.signal)} after {outcome.wall_s:.1f} s")
    if outcome.exit_code:
        why = remark(task, outcome.stderr_tail + outcome.stdout_tail)
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
