"""Runs orders on this machine: the threads, slots and queues of the local executors.

Executors differ only in how they start a command's interpreter: see `Launcher`.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fedpkg.devices import Gpu, Slot
from fedpkg.dispatch.attempt import Attempt, Disk, InSlot, Launcher, NotAlone, Step, Tools, remove_folder, tidy
from fedpkg.dispatch.client_states import OnSite, remove_version
from fedpkg.dispatch.inputs import SlotInput, is_big
from fedpkg.dispatch.isolation import Walls
from fedpkg.dispatch.keepers import Call, Keeper, KeeperGone, Outcome
from fedpkg.dispatch.package_files import PackageFiles
from fedpkg.dispatch.site import Job, Site
from fedpkg.dispatch.staging import Environs
from fedpkg.dispatch.working_copies import WorkingCopies
from fedpkg.dispatch.zygotes import Zygote
from fedpkg.errors import DispatchError
from fedpkg.files import remove_tree
from fedpkg.log import event
from fedpkg.waist.answer import Answer
from fedpkg.waist.order import Order
from fedpkg.waist.slots import SlotBoard

logger = logging.getLogger("fedpkg.dispatch")
LOST_TRIES = 3  # attempts of a task whose keepers are killed from outside, until this is recorded as its failure


@dataclass
class _Slot:
    """Runs one task at a time, with one keeper for each zygote that it has used."""

    number: int
    input: SlotInput
    keepers: dict[str, Keeper] = field(default_factory=dict)
    running: str | None = None  # task id
    keeper: Keeper | None = None  # the keeper that runs it


class _Lane:
    """Interchangeable slots: they see the same GPUs, or none. Tasks get them in order of arrival."""

    def __init__(self, place: Slot) -> None:
        self.place = place
        self.free: list[_Slot] = []
        self._turns: list[threading.Condition] = []  # of tasks that wait for a slot; each wakes only its own thread
        self._lock = threading.Lock()

    def line_up(self) -> threading.Condition:
        """A place in the queue, for `slot`."""
        turn = threading.Condition(self._lock)
        with self._lock:
            self._turns.append(turn)
        return turn

    @contextmanager
    def slot(self, turn: threading.Condition, is_cancelled: Callable[[], bool]) -> Iterator[_Slot]:
        """Wait for ``turn`` and a free slot, and hold the slot.

        Raises:
            DispatchError: the task was cancelled meanwhile.
        """
        with self._lock:
            turn.wait_for(lambda: is_cancelled() or (bool(self.free) and self._turns[0] is turn))
            if is_cancelled():
                raise DispatchError("cancelled")
            slot = self.free.pop(0)
        self.leave(turn)
        try:
            yield slot
        finally:
            with self._lock:
                self.free.append(slot)
                self._wake()

    def look_again(self) -> None:
        """Wake all waiting tasks, as some were cancelled."""
        with self._lock:
            for turn in self._turns:
                turn.notify()

    def leave(self, turn: threading.Condition) -> None:
        """Remove a place from the queue: its task has a slot, or needs none."""
        with self._lock:
            if turn in self._turns:
                self._turns.remove(turn)
                self._wake()

    def _wake(self) -> None:
        if self.free and self._turns:
            self._turns[0].notify()


class LocalExecutor(OnSite):
    """Runs tasks on this machine, one at a time in each of its ``slots``, each task in separate processes.

    Each slot has two threads: while one waits for its task, the other one checks the reply of the last task and stages
    the next one. If the slots differ, each has one thread only, so that no task is staged for a busy slot while another
    slot is free.

    ``folder`` is for the slots' input models and for working copies that are reused.
    """

    def __init__(self, site: Site, launcher: Launcher, *, slots: Sequence[Slot], folder: Path) -> None:
        super().__init__(site)
        self._launcher = launcher
        self._queue: queue.SimpleQueue[tuple[Job, Future[Answer]] | None] = queue.SimpleQueue()
        self._known: set[str] = set()  # ids of tasks without a result
        self._cancelled: set[str] = set()
        self._lock = threading.Lock()
        self._taking = threading.Lock()
        self._closing = False
        self._inputs = folder / "models"
        self._copies = WorkingCopies(folder / "copies", PackageFiles(folder / "package"))
        self._environs = Environs()
        self._disk = Disk()
        self._walls = Walls(folder / "walls") if launcher.isolated else None
        self._slots = [_Slot(number, SlotInput(self._inputs / str(number))) for number in range(len(slots))]
        self._board = SlotBoard(site.home, len(slots))
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

    def warm_program(self, digest: str, call: Call) -> tuple[Zygote, Call] | None:
        """The interpreter of a package's tasks, and the call that runs a program beside them in a fork of it.

        None: the program must be started cold, by the given ``call`` of bash.
        """
        package = self.site.package(digest)
        return None if package is None else self._launcher.warm_program(package, call)

    def submit(self, order: Order) -> Future[Answer]:
        job = self.site.job(order)
        future: Future[Answer] = Future()
        future.set_running_or_notify_cancel()  # only `cancel` cancels a task, so every future gets a result
        with self._lock:
            if self._closing:
                raise DispatchError("this executor is closed")
            self._known.add(order.task_id)
            self._queue.put((job, future))
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
        remove_tree(self._inputs)
        self._copies.clear()
        self._board.close()
        if self._walls is not None:
            self._walls.clear()
        while True:  # orders that no thread took
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if item is not None:
                item[1].set_result(_cancelled(item[0]))

    def _work(self, lane: _Lane) -> None:
        while True:
            with self._taking:  # tasks enter the lane in the order in which they are taken
                item = self._queue.get()
                turn = lane.line_up()
            if item is None:
                lane.leave(turn)
                return
            job, future = item
            answer: Answer | BaseException
            try:
                answer = self._run(lane, turn, job)
            except BaseException as error:  # a fault of fedpkg: the controller must see it
                answer = error
            finally:
                lane.leave(turn)
            with self._lock:
                self._known.discard(job.task_id)
                self._cancelled.discard(job.task_id)
            if isinstance(answer, Answer):
                future.set_result(answer)
            else:
                future.set_exception(answer)
            if self._walls is not None:
                self._walls.sweep(job)
            del item, job, future, answer  # they must not stay in memory while this thread waits

    def _is_cancelled(self, job: Job) -> bool:
        return self._closing or job.task_id in self._cancelled

    def _run(self, lane: _Lane, turn: threading.Condition, given: Job) -> Answer:
        if self._is_cancelled(given):
            return _cancelled(given)
        # Paths that a killed controller has left, and that cannot be removed, are not used again.
        tries, lost, private = 0, 0, False
        job = _placed(given, tries)
        while os.path.lexists(job.place.folder) or not remove_version(job.place.version):
            tries += 1
            job = _placed(given, tries)
        while True:
            tools = Tools(
                lane.place,
                self._launcher,
                self._copies,
                self._environs,
                self._disk,
                functools.partial(self._run_steps, lane, turn),
                self._is_cancelled,
            )
            try:
                return Attempt(job, tools, private=private, is_last=lost == LOST_TRIES - 1).run()
            except NotAlone as not_alone:
                private, reason = True, str(not_alone)
            except KeeperGone as gone:
                lost, reason = lost + 1, str(gone)
            finally:
                lane.leave(turn)
            # Remove files of this attempt, which does not count. The next holder of the home's lock removes the rest.
            tidy(job, self._copies.discard)
            tidy(job, remove_folder)
            event(logger, logging.WARNING, "task.again", task=job.task_id, reason=reason)
            # At new paths: the processes below a killed keeper are killed too, but the end of that is not known.
            tries += 1
            job, turn = _placed(given, tries), lane.line_up()

    def _run_steps(
        self,
        lane: _Lane,
        turn: threading.Condition,
        job: Job,
        steps: list[Step],
        goes_on: Callable[[Step, Outcome], bool],
    ) -> InSlot:
        """Wait for a slot and run the calls of a task in it: see `Tools`."""
        with lane.slot(turn, lambda: self._is_cancelled(job)) as slot, self._on_board(slot, job):
            given = slot.input if is_big(job) else None
            inode = None if given is None else given.put(job)
            sent_at = time.monotonic()
            for step in steps:
                call = step.call
                if inode is not None:
                    call = dataclasses.replace(call, shared_inodes=[*call.shared_inodes, inode])
                if not goes_on(step, self._run_call(slot, step.job, step.key, call)):
                    break
            ended_at = time.monotonic()
            return InSlot(sent_at, ended_at, given, given is None or given.is_as_given())

    @contextmanager
    def _on_board(self, slot: _Slot, job: Job) -> Iterator[None]:
        self._board.take(slot.number, job.order, time.time())
        try:
            yield
        finally:
            self._board.free(slot.number)

    def _run_call(self, slot: _Slot, job: Job, key: str, call: Call) -> Outcome:
        if self._walls is None:
            return self._call(slot, job, key, call)
        call = self._walls.confine(call, job)  # not earlier: the previous call could write to what this prepares
        try:
            return self._call(slot, job, key, call)
        finally:
            self._walls.put_back(job, call)

    def _call(self, slot: _Slot, job: Job, key: str, call: Call) -> Outcome:
        for last_try in (False, False, True):
            may_have_begun = False
            try:
                keeper = self._start(slot, job, key, call)
                try:
                    return keeper.outcome()
                except KeeperGone as gone:
                    may_have_begun = not gone.unread
                    keeper.close()
                    raise
                finally:
                    with self._lock:
                        slot.running = slot.keeper = None
            except KeeperGone:  # it was killed, perhaps with its zygote, before the task began
                if last_try or may_have_begun:
                    raise
        raise AssertionError("the last try returns or raises")

    def _start(self, slot: _Slot, job: Job, key: str, call: Call) -> Keeper:
        keeper = slot.keepers.get(key)
        if keeper is None or keeper.closed:
            keeper = slot.keepers[key] = self._launcher.keeper(key)
        try:
            with self._lock:  # a cancel comes either before the order (and stops it here) or after it, at the keeper
                if self._is_cancelled(job):
                    raise DispatchError("cancelled")
                keeper.start(call)
                slot.running, slot.keeper = job.task_id, keeper
                return keeper
        except KeeperGone:
            keeper.close()  # the next start makes a new one
            raise


def _cancelled(job: Job) -> Answer:
    return Answer(task_id=job.task_id, status="cancelled", folder=job.folder_name)


def _placed(job: Job, tries: int) -> Job:
    """The job at the paths of another attempt."""
    return job if not tries else dataclasses.replace(job, place=job.place.again(tries))
