"""The processor time of trackers on W2: TensorBoard, CSV and JSONL together, as a share of all that the run needs.

python tracking.py [--rounds 3]

The time of the trackers' own threads is counted, with the import of tensorboardX, and that of its writing thread. So
other load on the machine does not blur the share.
"""

import resource
import tempfile
import threading
import time
from pathlib import Path

from figures import Figure, parser, save, table
from workloads import CONFIGS

from fedpkg.library import run
from fedpkg.session.tracking import _Feed
from fedpkg.stores.home import Home

GOAL = 2  # percent


def count_threads(seconds):
    """Add up the processor time of the trackers' calls, and of tensorboardX's threads, by what it is for."""
    give, live = _Feed.__call__, threading.Thread._bootstrap_inner

    def giving(feed, event):
        before = time.thread_time()
        give(feed, event)
        seconds[repr(feed)] = seconds.get(repr(feed), 0.0) + time.thread_time() - before

    def living(thread):
        live(thread)
        if type(thread).__module__.startswith("tensorboardX"):
            seconds["tensorboardX's thread"] = time.thread_time()

    _Feed.__call__, threading.Thread._bootstrap_inner = giving, living


def main():
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, default=3)
    given = arguments.parse_args()
    seconds = {}
    count_threads(seconds)
    with tempfile.TemporaryDirectory(prefix="fedpkg-bench-") as home:
        trackers = ["csv", "tensorboard"]
        run(CONFIGS["w2"], Home.open(Path(home)), progress=False, rounds=given.rounds, tracking=trackers)
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    total_s = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    share = 100 * sum(seconds.values()) / total_s
    rows = [(name, f"{value:.2f}", f"{100 * value / total_s:.2f}") for name, value in seconds.items()]
    table([*rows, ("the whole run", f"{total_s:.1f}", "100")], ("W2", "CPU s", "%"))
    save(given.figures, [Figure("trackers on W2, % of the CPU seconds", f"{share:.2f}", f"< {GOAL}")])
    print(f"trackers together: {share:.2f} % (goal: < {GOAL} %)")


if __name__ == "__main__":
    main()
