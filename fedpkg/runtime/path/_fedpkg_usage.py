"""Measures a task from its keeper: the processor time and peak memory of its main process and their descendants.

Runs in a task's keeper: standard library only, imports nothing of fedpkg.

Processor time is exact, except for children of a resident interpreter, for which the kernel has a resolution of 10 ms.
It includes each process that was waited for: by its parent, or by the keeper if the parent ended first. Peak memory is
the kernel's high-water mark of a single process (pages shared with its zygote count in full), or the sum over all
processes if they exceeded the limit.

Not measured: processor time of processes whose parent ignores SIGCHLD, or that end with a PID namespace that the task
has made; the total memory of several processes, as long as it is below the limit.
"""

from __future__ import annotations

import time

from _fedpkg_processes import Process, read  # type: ignore[import-not-found]

TYPE_CHECKING = False  # type checkers recognise the name, and importing typing takes time
if TYPE_CHECKING:
    from typing import Any

CPUCLOCK_SCHED = 2  # the clock of a process in nanoseconds: clock_getcpuclockid(3)
RESET_PEAK = b"5"  # proc(5), clear_refs; Linux 4.0


class Meter:
    """Measures a task from now on; with ``used_before``, its main process has already run other tasks."""

    def __init__(self, main: int, *, used_before: bool) -> None:
        self.main = main
        # Of processes that have been waited for, minus what the main process had used before.
        self.cpu_s = -_cpu_s(main) if used_before else 0.0
        self.peak_bytes = 0
        if used_before:
            _forget_peak(main)

    def count(self, usage: Any) -> None:
        """Add the resources of a process that has been waited for."""
        self.cpu_s += usage.ru_utime + usage.ru_stime
        self.peak_bytes = max(self.peak_bytes, usage.ru_maxrss * 1024)

    def result(self, *, main_stays: bool) -> dict[str, float]:
        """What the task used. All its processes must have been waited for, except a main process that stays."""
        cpu_s, peak_bytes = self.cpu_s, self.peak_bytes
        if main_stays:
            cpu_s, peak_bytes = cpu_s + _cpu_s(self.main), max(peak_bytes, _peak_bytes(self.main))
        return {"cpu_s": max(0.0, cpu_s), "peak_memory_bytes": peak_bytes}


def _cpu_s(pid: int) -> float:
    """Processor time of a running process, and of the processes that it has waited for."""
    try:
        return time.clock_gettime((~pid << 3) | CPUCLOCK_SCHED) + float(Process(pid).children_cpu_s)
    except OSError:  # not Linux
        return 0.0


def _forget_peak(pid: int) -> None:
    try:
        with open("/proc/%d/clear_refs" % pid, "wb", buffering=0) as file:
            file.write(RESET_PEAK)
    except OSError:  # the peak then covers all its tasks
        pass


def _peak_bytes(pid: int) -> int:
    try:
        words = read("/proc/%d/status" % pid).split()
        return 1024 * int(words[words.index(b"VmHWM:") + 1])
    except (OSError, ValueError):
        return 0
