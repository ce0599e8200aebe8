"""The memory of a process and all its descendants, sampled while it runs."""

import contextlib
import os
import subprocess
import tempfile
import time

import psutil

INTERVAL_S = 0.02
MB = 1_000_000


def peak_memory(command, **options):
    """Run a command; the peaks, over time, of the sums over its process tree in MB: ``(RSS, PSS, stdout)``.

    RSS counts a page once for every process that maps it, PSS (from /proc/PID/smaps_rollup) divides it among them: the
    truth for forked children. PSS is None where the system does not tell. Sampling slows the command down: never time
    it.
    """
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, stdout=out, stdin=subprocess.DEVNULL, **options)
        root = psutil.Process(process.pid)
        peak_rss, peak_pss = 0, 0
        while process.poll() is None:
            before = time.perf_counter()
            rss, pss = 0, 0
            for member in [root, *_descendants(root)]:
                with contextlib.suppress(psutil.Error):
                    rss += member.memory_info().rss
                    pss += _pss(member.pid)
            peak_rss, peak_pss = max(peak_rss, rss), max(peak_pss, pss)
            time.sleep(max(0.0, INTERVAL_S - (time.perf_counter() - before)))
        if process.returncode:
            raise SystemExit(f"{' '.join(map(str, command))}: exit code {process.returncode}")
        out.seek(0)
        return peak_rss / MB, peak_pss / MB if peak_pss else None, out.read().decode()


def _descendants(root):
    try:
        return root.children(recursive=True)
    except psutil.Error:
        return []


def _pss(pid):
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            for line in file:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:  # it has ended, or this kernel has no such file
        pass
    return 0


def resident_mb(pid=None):
    """RSS of one process in MB."""
    return psutil.Process(pid or os.getpid()).memory_info().rss / MB
