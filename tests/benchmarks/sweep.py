"""A sweep of 24 points of the size of W1, against the rounds of one such run alone, and how busy the processors are.

python sweep.py [--points 24] [--parallel 2] [--fedpkg "python -m fedpkg"]

The rounds of a run alone do not count its start. A sweep has 24 starts, and shares the processors with nothing else.
"""

import os
import shlex
import statistics
import sys
import tempfile
from pathlib import Path

from figures import Figure, parser, run_measured, save, table
from workloads import CONFIGS, _open_store


def rounds_of(home):
    """Seconds of the rounds of each session, from the start of the first to the end of the last."""
    with _open_store(Path(home)) as store:
        found = []
        for session in store.list_sessions():
            rows = store.list_rounds(session.session_id)
            found.append(rows[-1].finished_at - rows[0].started_at)
    return found


def busy_s():
    """Seconds that the processors of this machine have worked since it started, for all programs."""
    user, nice, system, _idle, _wait, *of_interrupts = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]
    return sum(map(int, (user, nice, system, *of_interrupts))) / os.sysconf("SC_CLK_TCK")


def main():
    options = parser(__doc__)
    options.add_argument("--points", type=int, default=24, metavar="N")
    options.add_argument("--parallel", type=int, default=2, metavar="N")
    options.add_argument("--fedpkg", default=f"{shlex.quote(sys.executable)} -m fedpkg", metavar="COMMAND")
    given = options.parse_args()
    program, config = shlex.split(given.fedpkg), str(CONFIGS["w1"])

    with tempfile.TemporaryDirectory(prefix="fedpkg-bench-") as folder:
        alone, alone_cpu_s = [], []
        for number in range(3):
            home = f"{folder}/alone-{number}"
            alone_cpu_s.append(run_measured([*program, "run", config, "--home", home])[1])
            alone += rounds_of(home)
        words = ["experiment", "sweep", config, f"seed=range({given.points})", "--parallel", str(given.parallel)]
        before_s = busy_s()
        wall_s, cpu_s, _ = run_measured([*program, *words, "--home", f"{folder}/sweep"])
        others = (busy_s() - before_s - cpu_s) / (wall_s * os.cpu_count())
        inside = rounds_of(f"{folder}/sweep")
    cores = len(os.sched_getaffinity(0))
    busy = cpu_s / (wall_s * cores)
    expected = statistics.median(alone) * given.points
    rows = [
        ("rounds of one run alone, s", f"{statistics.median(alone):.2f}"),
        (f"rounds of {given.points} such runs, one after the other, s", f"{expected:.1f}"),
        ("rounds of the points, side by side, their sum, s", f"{sum(inside):.1f}"),
        ("whole sweep, s", f"{wall_s:.1f}"),
        ("whole sweep / rounds one after the other", f"{wall_s / expected:.2f}"),
        ("whole sweep / sum of the points' rounds", f"{wall_s / sum(inside):.2f}"),
        ("CPU of the sweep, s", f"{cpu_s:.1f}"),
        (f"CPU of {given.points} runs, s", f"{statistics.median(alone_cpu_s) * given.points:.1f}"),
        (f"processors busy ({cores})", f"{100 * busy:.0f} %"),
        ("processors busy with other programs", f"{100 * others:.0f} %"),
    ]
    print(f"A sweep of {given.points} points of W1, {given.parallel} at the same time")
    table(rows, ["", "value"])
    if others > 0.05:
        print("Other programs ran meanwhile: only the CPU seconds count. Repeat it on a quiet machine.\n")
    figures = [
        Figure("sweep of W1 / rounds one after the other", f"{wall_s / expected:.2f}", "≤ 1.15"),
        Figure("processors busy in a sweep", f"{100 * busy:.0f} %", "> 85 %"),
    ]
    save(given.figures, figures)


if __name__ == "__main__":
    main()
