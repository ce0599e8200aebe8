"""What every benchmark prints: aligned tables, and the figures that ``run_all.py`` gathers from all of them."""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Numeric libraries read these when they are loaded: everything here runs with one thread, as the tasks do.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Figure:
    """One number worth keeping an eye on."""

    name: str
    value: str
    goal: str = ""


def parser(docstring):
    """An argument parser for a benchmark, with ``--figures``."""
    made = argparse.ArgumentParser(description=docstring.splitlines()[0])
    made.add_argument("--figures", type=Path, metavar="FILE", help="also write the main figures there, as JSON")
    return made


def save(path, figures):
    """Write figures for ``run_all.py``, if it asked for them."""
    if path is not None:
        path.write_text(json.dumps([asdict(figure) for figure in figures]))


def load(path):
    return [Figure(**figure) for figure in json.loads(path.read_text())]


def table(rows, head):
    """Print rows of text in columns, the first one to the left."""
    lines = [head, *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for number, line in enumerate(lines):
        cells = [
            cell.ljust(width) if not i else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
        if number == 0:
            print("  ".join("-" * width for width in widths))
    print(flush=True)


def spread(values, digits=1, scale=1.0):
    """``median (min – max)``, or the value alone."""
    values = [value * scale for value in values]
    if not values:
        return "–"
    middle = f"{statistics.median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f} – {max(values):.{digits}f})"


def run_measured(command, **options):
    """Run a command to its end; ``(wall s, CPU s with all descendants that were waited for, stdout)``.

    Raises:
        SystemExit: it failed; with the end of what it said.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=err, stdin=subprocess.DEVNULL, **options)
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            tail = err.read().decode(errors="replace")[-3000:]
            raise SystemExit(f"{' '.join(map(str, command))}: exit code {process.returncode}\n{tail}")
        return wall_s, usage.ru_utime + usage.ru_stime, out.read().decode()
