"""Big models and many clients: fedpkg against a script that only moves files, and against itself.

python scale.py [--repeat 3]

W3 against ``files_only.py``; W2 with 1000 and with 10,000 clients, 100 a round; and the controller's own peak memory on
W3 with 8 and with 64 clients, on W2 with 1000 and with 10,000.
"""

import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

from figures import HERE, ONE_THREAD, Figure, parser, run_measured, save, spread, table
from workloads import Fedpkg, ratios

MANY = ["clients.count=10000", "sampler.fraction_train=0.01"]


def files_only():
    """Seconds of a round after the first."""
    _, _, out = run_measured([sys.executable, str(HERE / "files_only.py")], env=os.environ | ONE_THREAD)
    return statistics.median(json.loads(out)["rounds_s"][1:])


def start_s(system):
    """What a run takes beside its rounds: to start, and to end."""
    return [wall - total for wall, total in zip(system.runs.wall_s, system.runs.all_rounds_s, strict=True)]


def controller_peak_mb(system, *more):
    """Peak of the memory of the controller's own process, mapped files left out (RssAnon), in MB."""
    peak = 0
    with tempfile.TemporaryDirectory(prefix="fedpkg-bench-") as home:
        command = [*system.command, "--home", home, *more]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None:
                try:
                    with open(f"/proc/{process.pid}/status") as file:
                        fields = dict(line.split(":", 1) for line in file)
                    peak = max(peak, int(fields.get("RssAnon", "0 kB").split()[0]) * 1024)
                except OSError:  # it has just ended
                    pass
                time.sleep(0.005)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    return peak / 1e6


def main():
    options = parser(__doc__)
    options.add_argument("--repeat", type=int, default=3, metavar="N", help="timed runs of each (default: 3)")
    options.add_argument("--executor", default="forkserver", help="of W3 (default: forkserver)")
    options.add_argument(
        "--fedpkg", default=f"{shlex.quote(sys.executable)} -m fedpkg", metavar="COMMAND", help="how to start it"
    )
    given = options.parse_args()
    program = shlex.split(given.fedpkg)
    w1, w2, w3, many = (
        Fedpkg(workload, program=program, executor=given.executor) for workload in ("w1", "w2", "w3", "w2")
    )
    many.command += MANY
    only_files_s = []
    for _ in range(given.repeat):
        only_files_s.append(files_only())
        for system in (w3, w1, w2, many):
            system.time_once()
    few_mb, many_mb = (controller_peak_mb(w3, "rounds=1", f"clients.count={count}") for count in (8, 64))
    thousand_mb, many_clients_mb = controller_peak_mb(w2), controller_peak_mb(many)

    w3_ratio = ratios(w3.runs.later_rounds_s, only_files_s)
    round_ratio = ratios(many.runs.later_rounds_s, w2.runs.later_rounds_s)
    more_s = statistics.median(start_s(many)) - statistics.median(start_s(w1))
    print(f"Medians (min – max) of {given.repeat}")
    table(
        [
            ("W3 a round, files only, ms", spread(only_files_s, 0, 1000), ""),
            ("W3 a round, fedpkg, ms", spread(w3.runs.later_rounds_s, 0, 1000), f"{w3_ratio} ×"),
            ("W2 a round, 1000 clients, ms", spread(w2.runs.later_rounds_s, 0, 1000), ""),
            ("W2 a round, 10,000 clients, ms", spread(many.runs.later_rounds_s, 0, 1000), f"{round_ratio} ×"),
            ("start and end, W1, s", spread(start_s(w1), 2), ""),
            ("start and end, 10,000 clients, s", spread(start_s(many), 2), f"{more_s:+.2f} s"),
            ("the controller's own peak, W3, 8 clients, MB", f"{few_mb:.0f}", ""),
            ("the controller's own peak, W3, 64 clients, MB", f"{many_mb:.0f}", f"{many_mb / few_mb:.2f} ×"),
            ("the controller's own peak, W2, 1000 clients, MB", f"{thousand_mb:.0f}", ""),
            (
                "the controller's own peak, W2, 10,000 clients, MB",
                f"{many_clients_mb:.0f}",
                f"{many_clients_mb / thousand_mb:.2f} ×",
            ),
        ],
        ["", "measured", "compared"],
    )
    save(
        given.figures,
        [
            Figure("W3 a round, fedpkg / files only", w3_ratio, "≤ 1.5 (goal 1.2)"),
            Figure("A round of 100 of 10,000 clients / of 1000", round_ratio, "≤ 1.2"),
            Figure("Start with 10,000 clients, s more than W1", f"{more_s:.2f}", "≤ 3"),
            Figure("The controller's peak, 64 / 8 clients", f"{many_mb / few_mb:.2f}", "the same"),
            Figure("The controller's peak, 10,000 / 1000 clients", f"{many_clients_mb / thousand_mb:.2f}", "the same"),
        ],
    )


if __name__ == "__main__":
    main()
