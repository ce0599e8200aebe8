"""The limits of a task: its own process sets some of them before the user's code, its keeper enforces the others.

Runs inside a task's interpreter and in its keeper: standard library only, imports nothing of fedpkg.
"""

from __future__ import annotations

import errno
import math
import os
import resource
import signal
import time

from _fedpkg_processes import (  # type: ignore[import-not-found]
    NamelessFile,
    Process,
    descendants,
    kill,
    memory_devices,
    nameless_files,
    slow_down,
    slow_down_session,
)

TYPE_CHECKING = False  # type checkers recognise the name, and importing typing takes time
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from typing import Any

    import _fedpkg_usage  # type: ignore[import-not-found]

TICK_S = 0.025  # between two counts of the processes; tasks that end before the first count cost nothing
SUM_EVERY_S = 0.1  # between two sums of their memory and time
SCAN_EVERY_S = 0.25  # between two scans of the files; both are longer if
SHARE = 0.1  # they would take a bigger share of the keeper's time
SLICE_S = 0.005  # of a scan at a time
MAPPED_EVERY = 4  # scans of open files there is one of mapped files: 2 ms for each process that uses PyTorch
FEW = 32  # processes, which may appear at once
ROOM = 1024  # threads that the user may start while a task runs, in it and elsewhere
BUSY = 2  # threads that may run at normal priority, for each thread of the task's limit
LONG = 10  # consecutive sums with more, until the first thread loses its priority, too, as new threads inherit it
ENTRY_BYTES = 4096  # the least that a file or folder counts, for its name and inode


# ---------------------------------------------------------------- set by the task's own process


def apply(limits: dict[str, Any], *, for_good: bool = True) -> None:
    """Set the limits that the kernel enforces for each process; processes that this one starts inherit them.

    With ``for_good`` only root can raise them again; otherwise this process can.
    """
    _set(resource.RLIMIT_CORE, 0, for_good)
    if for_good:  # a task must not raise its priority after the keeper has lowered it
        for name in ("RLIMIT_NICE", "RLIMIT_RTPRIO"):
            if hasattr(resource, name):
                _set(getattr(resource, name), 0, for_good)
    if limits["file_bytes"] is not None:
        _set(resource.RLIMIT_FSIZE, limits["file_bytes"], for_good)
    if limits["open_files"] is not None:
        _set(resource.RLIMIT_NOFILE, limits["open_files"], for_good)
    if limits["cpu_s"] is not None and for_good:  # in case the keeper is stopped
        _set(resource.RLIMIT_CPU, math.ceil(limits["cpu_s"]) + 2, for_good)
    if limits["processes"] is not None:  # counts all processes of the user (root has no limit): the last resort
        _set(resource.RLIMIT_NPROC, threads_of_the_machine() + max(ROOM, 2 * limits["processes"]), for_good)
    try:  # if the kernel runs out of memory, it ends tasks first
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        pass


def threads_of_the_machine() -> int:
    try:
        with open("/proc/loadavg") as file:
            return int(file.read().split()[3].partition("/")[2])
    except OSError:
        return 1 << 20


def _set(which: int, value: int, for_good: bool) -> None:
    hard = resource.getrlimit(which)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    try:
        resource.setrlimit(which, (value, value if for_good else hard))
    except (OSError, ValueError):
        pass  # above the system's maximum, so nothing can exceed it


# ---------------------------------------------------------------- enforced by the keeper


class Walk:
    """A long scan that is repeated, in short slices."""

    def __init__(self, steps: Callable[[], Iterator[None]]) -> None:
        self.steps = steps
        self.now: Iterator[None] | None = None
        self.cost_s = 0.0
        self.next = 0.0

    def go_on(self) -> None:
        if time.monotonic() < self.next:
            return
        started = time.thread_time()
        steps = self.now = self.now or self.steps()
        for _ in steps:
            if time.thread_time() - started > SLICE_S:
                self.cost_s += time.thread_time() - started
                return
        spent_s = self.cost_s + time.thread_time() - started
        self.next = time.monotonic() + max(SCAN_EVERY_S, spent_s / SHARE)
        self.now, self.cost_s = None, 0.0


class Supervisor:
    """Watches one task from its keeper, the ancestor of all its processes. Call `look` when it is ``due``.

    ``exceeded`` is then the name of the exceeded limit, if any, and ``measured`` the value.
    """

    def __init__(
        self,
        limits: dict[str, Any],
        folders: Iterable[str],
        given: Mapping[str, Any],
        main: int,
        *,
        threads: int,
        meter: _fedpkg_usage.Meter,
    ) -> None:
        self.limits = limits
        self.folders = list(folders)
        self.given_files: int = given["files"]  # files and folders that existed before the task
        self.given_inodes = frozenset(given["inodes"])  # of files that tasks share
        self.main = main
        self.threads = threads  # the task's limit
        self.meter = meter
        self.crowded = 0  # consecutive sums with too many running threads
        self.due = time.monotonic() + TICK_S if any(limits.values()) else math.inf
        self.exceeded: str | None = None
        self.measured = 0.0
        self.in_folders = Walk(self._look_into_folders)
        self.open_files = Walk(self._look_at_open_files)
        self.nameless_bytes = 0
        self.on_disk: dict[tuple[int, int], NamelessFile] = {}  # unlinked files,
        self.in_memory: dict[tuple[int, int], NamelessFile] = {}  # by device and inode
        self.only_mapped: dict[tuple[int, int], NamelessFile] = {}
        self.memory_devices: set[int] | None = None
        self.looks_at_files = 0
        self.next_sum = 0.0
        self.pids = [main]
        self.count = 0

    def look(self, spare: Collection[int]) -> bool:
        """Whether the task exceeds a limit. ``spare`` are children of the keeper that do not belong to the task."""
        if not self._look_at_processes(spare):
            if self.limits["folder_bytes"] is not None or self.limits["memory_bytes"] is not None:
                self.open_files.go_on()
            if self._watches_files():
                self.in_folders.go_on()
        self.due = time.monotonic() + TICK_S
        return self.exceeded is not None

    def look_at_the_end(self) -> bool:
        """Whether its folders exceed a limit after all its processes have ended."""
        self._count_nameless({})
        return self._watches_files() and any(self._has_too_much(*totals) for totals in self._sizes())

    def _watches_files(self) -> bool:
        return self.limits["folder_bytes"] is not None or self.limits["folder_files"] is not None

    def _has_too_much(self, size_bytes: int, files: int, too_deep: bool) -> bool:
        if too_deep:
            self.exceeded = "path"
        if self.on_disk and size_bytes + self.nameless_bytes > (self.limits["folder_bytes"] or math.inf):
            self._count_nameless(_still_nameless(self.on_disk))
        return (
            too_deep
            or self._is_over("folder_bytes", size_bytes + self.nameless_bytes)
            or self._is_over("folder_files", files - self.given_files)
        )

    def _is_over(self, name: str, value: float, limit: float | None = None) -> bool:
        limit = limit or self.limits[name]
        if limit is None or value <= limit:
            return False
        self.exceeded, self.measured = name, value
        return True

    def _look_at_processes(self, spare: Collection[int]) -> bool:
        self._bury(spare)
        # A fork bomb doubles faster than it can be counted, so processes that grow like one are stopped while counting.
        few = min(max(FEW, 1.25 * self.count), self.limits["processes"] or math.inf)
        pids, stopped = descendants(spare, stop_above=few)
        if self._is_over("processes", len(pids)):
            return True
        if stopped:
            for pid in pids:
                kill(pid, signal.SIGCONT)
        self.count = len(pids)
        self.pids = pids or [self.main]
        if time.monotonic() < self.next_sum:
            return False
        started = time.thread_time()
        processes = []
        for pid in self.pids:
            try:
                processes.append(Process(pid))
            except (OSError, ValueError):  # it has just ended
                continue
        threads = sum(process.threads for process in processes)
        cpu_s = self.meter.cpu_s + sum(process.cpu_s for process in processes)
        if self.limits["threads"] and self._is_over("processes", threads, self.limits["threads"]):
            return True
        if self._is_over("cpu_s", cpu_s):
            return True
        sessions = {process.session for process in processes}
        if self.limits["sessions"] and self._is_over("sessions", len(sessions)):
            return True
        self._share_processors(processes, threads)
        self._look_at_memory(processes)
        self.next_sum = time.monotonic() + max(SUM_EVERY_S, (time.thread_time() - started) / SHARE)
        return self.exceeded is not None

    def _look_at_memory(self, processes: list[Process]) -> None:
        """Add up the resident sets, which is fast; only if they exceed the limit, measure the memory in use."""
        at_most = sum(process.rss_bytes for process in processes) + _bytes_of(self.in_memory)
        if at_most <= (self.limits["memory_bytes"] or math.inf):
            return
        self.in_memory = _still_nameless(self.in_memory)
        used = sum(process.memory_bytes(apart=self.in_memory) for process in processes) + _bytes_of(self.in_memory)
        self.meter.peak_bytes = max(self.meter.peak_bytes, used)
        self._is_over("memory_bytes", used)

    def _bury(self, spare: Collection[int]) -> None:
        """Wait for orphans that have ended, as the keeper is their parent now."""
        for _ in range(1000):
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None or ended.si_pid == self.main or ended.si_pid in spare:
                return
            self.meter.count(os.wait4(ended.si_pid, 0)[2])

    def _share_processors(self, processes: list[Process], threads: int) -> None:
        """If too many threads run, lower their priority until they get about the share of the task's threads."""
        running: list[int] = []
        if threads > BUSY * self.threads:
            for process in processes:
                try:
                    running += process.running_threads()
                except OSError:  # it has just ended
                    continue
        if len(running) <= BUSY * self.threads:
            self.crowded = 0
            return
        self.crowded += 1
        for thread in running:
            if thread != self.main or self.crowded > LONG:
                slow_down(thread, self.threads / len(running))
        first = next((process.session for process in processes if process.pid == self.main), None)
        others = {process.session: process.pid for process in processes if process.session != first}
        for pid in others.values():
            slow_down_session(pid)

    def _look_at_open_files(self) -> Iterator[None]:
        """Add up unlinked files: their space on disk or in memory is visible nowhere else."""
        if self.memory_devices is None:
            self.memory_devices = memory_devices()
        mapped = self.looks_at_files % MAPPED_EVERY == 1  # never in the first scan, which short tasks see, too
        self.looks_at_files += 1
        found = {} if mapped else dict(self.only_mapped)
        for pid in self.pids:
            for file in nameless_files(pid, mapped=mapped):
                if file is not None and (file.key not in found or found[file.key].path is None):
                    found[file.key] = file
                yield
        if mapped:
            self.only_mapped = {key: file for key, file in found.items() if file.path is None}
        memory = {key for key in found if key[0] in self.memory_devices}
        # Memory that is mapped but not open counts as memory of the process.
        self.in_memory = {key: found[key] for key in memory if found[key].path is not None}
        self._count_nameless({key: file for key, file in found.items() if key not in memory})

    def _count_nameless(self, on_disk: dict[tuple[int, int], NamelessFile]) -> None:
        self.on_disk = on_disk
        self.nameless_bytes = _bytes_of(on_disk)

    def _look_into_folders(self) -> Iterator[None]:
        for totals in self._sizes():
            if self._has_too_much(*totals):
                return
            yield

    def _sizes(self) -> Iterator[tuple[int, int, bool]]:
        """The running totals of bytes and of entries in the folders; whether one is too deeply nested to be seen.

        Links are not followed. A file counts with its size when copied: in full, whatever its holes and hard links.
        """
        total = files = 0
        folders = list(self.folders)
        while folders:
            try:
                with os.scandir(folders.pop()) as entries:
                    for entry in entries:
                        try:
                            facts = entry.stat(follow_symlinks=False)
                        except OSError as error:
                            if error.errno == errno.ENAMETOOLONG:
                                raise
                            continue
                        # All clients share the model and big files of the package.
                        shared = facts.st_nlink > 1 and facts.st_ino in self.given_inodes
                        total += ENTRY_BYTES if shared else size_of(facts)
                        files += 1
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(entry.path)
                        yield total, files, False
            except OSError as error:  # usually removed meanwhile
                if error.errno == errno.ENAMETOOLONG:
                    yield total, files, True


def size_of(facts: os.stat_result) -> int:
    """The bytes that a file or folder counts."""
    return max(ENTRY_BYTES, facts.st_size, facts.st_blocks * 512)


def _bytes_of(files: dict[tuple[int, int], NamelessFile]) -> int:
    return sum(file.size_bytes for file in files.values())


def _still_nameless(files: dict[tuple[int, int], NamelessFile]) -> dict[tuple[int, int], NamelessFile]:
    """The files that are still open and unlinked, with their current sizes."""
    return {key: file for key, file in files.items() if file.look_again()}
