"""Fork and exit of an idle child of a process with PyTorch loaded, with and without huge pages.

python fork_cost.py [--repeat 100]

The parent is what a zygote is when it starts to fork: imports done, an optimiser stepped, garbage frozen. Twice: as it
is, and after ``use_huge_pages`` of fedpkg/runtime/zygote.py.
"""

import gc
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from figures import ONE_THREAD, Figure, parser, save, spread, table
from memory import resident_mb

MODULES = ["json", "os", "fire", "numpy", "torch", "torch.nn.functional"]  # of the mlp client


def load_zygote():
    """The zygote's file as a module; it stands alone and does nothing on import."""
    path = Path(importlib.util.find_spec("fedpkg").origin).parent / "runtime" / "zygote.py"
    spec = importlib.util.spec_from_file_location("zygote", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fork_often(repeat, *, huge_pages):
    """What a child process reports: seconds of each fork with exit, seconds to prepare, and memory."""
    zygote = load_zygote()
    zygote.preload([("import", module, ()) for module in MODULES], (), ())
    gc.collect()
    before_mb = resident_mb()
    started = time.perf_counter()
    if huge_pages:
        zygote.use_huge_pages()
    prepare_s = time.perf_counter() - started
    gc.freeze()
    seconds, until_child_s = [], []
    for _ in range(repeat):
        started = time.perf_counter()
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        until_child_s.append(time.perf_counter() - started)
        os.waitpid(pid, 0)
        seconds.append(time.perf_counter() - started)
    return {
        "fork_and_exit_s": seconds,
        "fork_s": until_child_s,
        "prepare_s": prepare_s,
        "before_mb": before_mb,
        "rss_mb": resident_mb(),
        "huge_mb": anonymous_huge_mb(),
    }


def anonymous_huge_mb():
    try:
        with open("/proc/self/smaps_rollup") as file:
            return sum(int(line.split()[1]) for line in file if line.startswith("AnonHugePages:")) * 1024 / 1e6
    except OSError:
        return 0.0


def main():
    options = parser(__doc__)
    options.add_argument("--repeat", type=int, default=100, metavar="N", help="forks of each kind (default: 100)")
    options.add_argument(
        "--child", choices=["small", "huge"], help="be the forking process of that kind, and print JSON"
    )
    given = options.parse_args()
    if given.child:
        print(json.dumps(fork_often(given.repeat, huge_pages=given.child == "huge")))
        return

    reports = {}
    for kind in ("small", "huge"):
        command = [sys.executable, __file__, "--child", kind, "--repeat", str(given.repeat)]
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=os.environ | ONE_THREAD).stdout
        reports[kind] = json.loads(out)
    small, huge = reports["small"], reports["huge"]
    print(f"Fork and exit of an idle child, PyTorch loaded: medians (min – max) of {given.repeat}")
    table(
        [
            ("fork and exit, ms", *(spread(each["fork_and_exit_s"], 2, 1000) for each in (small, huge))),
            ("of it until fork() returns, ms", *(spread(each["fork_s"], 2, 1000) for each in (small, huge))),
            ("use_huge_pages(), once, ms", "–", f"{1000 * huge['prepare_s']:.0f}"),
            ("RSS before, MB", *(f"{each['before_mb']:.0f}" for each in (small, huge))),
            ("RSS when forking, MB", *(f"{each['rss_mb']:.0f}" for each in (small, huge))),
            ("of it in huge pages, MB", *(f"{each['huge_mb']:.0f}" for each in (small, huge))),
        ],
        ["", "as it is", "huge pages"],
    )
    values = [f"{1000 * statistics.median(each['fork_and_exit_s']):.1f}" for each in (huge, small)]
    save(given.figures, [Figure("Fork and exit of an idle child, ms: huge pages / as it is", " / ".join(values))])


if __name__ == "__main__":
    main()
