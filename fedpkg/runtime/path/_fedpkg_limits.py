"""What one task may use: limits that its own process sets before the user's code, and those that its keeper watches.

Runs inside a task's interpreter and in its keeper: standard library only, imports nothing of fedpkg.
"""

from __future__ import annotations

import math
import os
import resource
import signal
import time

from _fedpkg_processes import Process, descendants, kill  # type: ignore[import-not-found]

TYPE_CHECKING = False  # type checkers know the name; to import the one of typing takes time
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from typing import Any

TICK_S = 0.025  # between two counts of the processes; a task that ends before the first one costs nothing
SUM_EVERY_S = 0.1  # between two sums of what they use,
SCAN_EVERY_S = 0.25  # and two looks at the files; or longer, so that
SHARE = 0.1  # each takes no bigger share of the keeper's time,
SLICE_S = 0.005  # nor a look at files longer at once
FEW = 32  # processes, which may come at once
ROOM = 1024  # threads that a user may start, in this task and elsewhere, while it runs
ENTRY_BYTES = 4096  # the least that a file or folder takes, with its name and inode


# ---------------------------------------------------------------- set by the task's own process


def apply(limits: dict[str, Any], *, for_good: bool = True) -> None:
    """Set the limits that the kernel holds for each process by itself; what this process starts inherits them.

    With ``for_good`` only root can raise them again; else whoever called can.
    """
    _set(resource.RLIMIT_CORE, 0, for_good)
    if limits["file_bytes"] is not None:
        _set(resource.RLIMIT_FSIZE, limits["file_bytes"], for_good)
    if limits["open_files"] is not None:
        _set(resource.RLIMIT_NOFILE, limits["open_files"], for_good)
    if limits["cpu_s"] is not None and for_good:  # should the keeper have been stopped
        _set(resource.RLIMIT_CPU, math.ceil(limits["cpu_s"]) + 2, for_good)
    if limits["processes"] is not None:  # counted for a user, not a task, and not for root: the last wall
        _set(resource.RLIMIT_NPROC, threads_of_the_machine() + max(ROOM, 2 * limits["processes"]), for_good)
    try:  # should the kernel run out of memory before anybody exceeds a limit, it ends tasks first
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
        pass  # more than this system knows: then nothing can exceed it, either


# ---------------------------------------------------------------- watched by the keeper


class Supervisor:
    """Watches one task from its keeper, the ancestor of all that it starts. `look` when it is ``due``.

    ``exceeded`` is then the name of the limit that it exceeds, if any, and ``measured`` what it used.
    """

    def __init__(self, limits: dict[str, Any], folders: Iterable[str], main: int, *, used_before: bool) -> None:
        self.limits = limits
        self.folders = list(folders)
        self.main = main
        self.due = time.monotonic() + TICK_S if any(limits.values()) else math.inf
        self.exceeded: str | None = None
        self.measured = 0.0
        self.scan = self._scan()
        self.scan_cost_s = 0.0
        self.next_scan = 0.0
        self.next_sum = 0.0
        self.count = 0
        # Of processes that are no longer there: orphans, which we wait for. What an interpreter that stays has used
        # already was for the tasks before.
        self.cpu_s = -Process(main).cpu_s if used_before and os.path.isdir("/proc/self") else 0.0

    def look(self, spare: Collection[int]) -> bool:
        """Does the task exceed a limit? ``spare`` are the keeper's children that are not the task's."""
        if not self._look_at_processes(spare):
            self._look_at_files()
        self.due = time.monotonic() + TICK_S
        return self.exceeded is not None

    def look_at_the_end(self) -> bool:
        """All its processes are gone: has it left too much in its folders?"""
        most = self.limits["folder_bytes"]
        return most is not None and any(self._is_over("folder_bytes", total) for total in self._sizes())

    def _is_over(self, name: str, value: float, limit: float | None = None) -> bool:
        limit = limit or self.limits[name]
        if limit is None or value <= limit:
            return False
        self.exceeded, self.measured = name, value
        return True

    def _look_at_processes(self, spare: Collection[int]) -> bool:
        self._bury(spare)
        # A fork bomb doubles faster than we can count. So what grows like one is stopped while it is counted.
        few = min(max(FEW, 1.25 * self.count), self.limits["processes"] or math.inf)
        pids, stopped = descendants(spare, stop_above=few)
        if self._is_over("processes", len(pids)):
            return True
        if stopped:
            for pid in pids:
                kill(pid, signal.SIGCONT)
        self.count = len(pids)
        if time.monotonic() < self.next_sum:
            return False
        started = time.thread_time()
        processes = []
        for pid in pids or [self.main]:
            try:
                processes.append(Process(pid))
            except (OSError, ValueError):  # it has just ended
                continue
        threads = sum(process.threads for process in processes)
        cpu_s = self.cpu_s + sum(process.cpu_s for process in processes)
        if self.limits["threads"] and self._is_over("processes", threads, self.limits["threads"]):
            return True
        if self._is_over("cpu_s", cpu_s):
            return True
        memory = self.limits["memory_bytes"]
        if memory is not None and sum(process.rss_bytes for process in processes) > memory:  # the quick look
            self._is_over("memory_bytes", sum(process.memory_bytes() for process in processes))
        self.next_sum = time.monotonic() + max(SUM_EVERY_S, (time.thread_time() - started) / SHARE)
        return self.exceeded is not None

    def _bury(self, spare: Collection[int]) -> None:
        """Wait for orphans that have ended: we are their parent now."""
        for _ in range(1000):
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None or ended.si_pid == self.main or ended.si_pid in spare:
                return
            usage = os.wait4(ended.si_pid, 0)[2]
            self.cpu_s += usage.ru_utime + usage.ru_stime

    def _look_at_files(self) -> None:
        if self.limits["folder_bytes"] is None or time.monotonic() < self.next_scan:
            return
        started = time.thread_time()
        while (spent := time.thread_time() - started) < SLICE_S:
            total = next(self.scan)
            if total is None:
                self.next_scan = time.monotonic() + max(SCAN_EVERY_S, (self.scan_cost_s + spent) / SHARE)
                self.scan_cost_s = 0.0
                return
            if self._is_over("folder_bytes", total):
                return
        self.scan_cost_s += spent

    def _scan(self) -> Iterator[int | None]:
        while True:
            yield from self._sizes()
            yield None

    def _sizes(self) -> Iterator[int]:
        """The bytes that all in the folders takes on the disk, as they add up. Follows no links."""
        total = 0
        folders = list(self.folders)
        while folders:
            try:
                with os.scandir(folders.pop()) as entries:
                    for entry in entries:
                        try:
                            facts = entry.stat(follow_symlinks=False)
                        except OSError:
                            continue
                        # A share of a file that has other names, too: the model is one file for all clients.
                        total += max(ENTRY_BYTES, facts.st_blocks * 512 // max(1, facts.st_nlink))
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(entry.path)
                        yield total
            except OSError:  # removed meanwhile, or its path is too long
                continue
