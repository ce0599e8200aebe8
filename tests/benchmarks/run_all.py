"""Every benchmark, one after the other, and one table of what matters at the end: what ``make bench`` runs.

python run_all.py [--quick]
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import HERE, load, table

BENCHMARKS = [
    ["start_up.py"],
    ["composing.py"],
    ["record_files.py"],
    ["algorithm_data.py"],
    ["fork_cost.py"],
    ["warm_call.py"],
    ["isolation.py"],
    ["environments.py"],
    ["report.py"],
    ["fold.py"],
    ["weights.py"],
    ["aggregators.py"],
    ["clusters.py"],
    ["workloads.py", "w1", "w2", "w3"],
    ["workloads.py", "w1", "--executor", "resident"],
    ["message_apps.py", "w1", "w2", "w3", "ping"],
    ["algorithms.py"],
    ["sweep.py"],
    ["controller_cost.py"],
    ["tracking.py"],
    ["scale.py"],
    ["trees.py"],
    ["entities.py"],
    ["viewers.py"],
]
QUICK = [
    ["start_up.py", "--repeat", "1"],
    ["composing.py", "--repeat", "1", "--points", "5"],
    ["record_files.py", "--repeat", "1"],
    ["algorithm_data.py", "--rows", "1000000"],
    ["fork_cost.py", "--repeat", "20"],
    ["warm_call.py", "--repeat", "5"],
    ["isolation.py", "--repeat", "5"],
    ["environments.py", "--repeat", "1"],
    ["report.py", "--rounds", "20"],
    ["fold.py", "--repeat", "1", "--clients", "2"],
    ["weights.py", "--repeat", "1"],
    ["aggregators.py", "--repeat", "1", "--clients", "8", "--elements", "1000000"],
    ["clusters.py", "--clients", "100", "--elements", "10000", "--close", "20"],
    ["entities.py", "--entities", "3000", "--repeat", "1"],
    ["viewers.py", "--repeat", "1", "--rounds", "5"],
    ["workloads.py", "w1", "--repeat", "1"],
    ["message_apps.py", "w1", "--repeat", "1", "--no-memory"],
    ["algorithms.py", "--repeat", "1", "--nodes", "5"],
    ["sweep.py", "--points", "2"],
    ["controller_cost.py", "--repeat", "1", "--clients", "32", "--rounds", "2"],
]


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--quick", action="store_true", help="little of each: to see that it works, not to be read")
    given = options.parse_args()
    began = time.perf_counter()
    figures, broken = [], []
    with tempfile.TemporaryDirectory(prefix="fedpkg-bench-") as folder:
        for number, (name, *arguments) in enumerate(QUICK if given.quick else BENCHMARKS):
            gathered = Path(folder) / f"{number}.json"
            print(f"==== {name} {' '.join(arguments)}".rstrip(), flush=True)
            done = subprocess.run([sys.executable, str(HERE / name), *arguments, "--figures", str(gathered)])
            if done.returncode:
                broken.append(" ".join([name, *arguments]))
            else:
                figures += load(gathered)
    print(f"==== all, in {time.perf_counter() - began:.0f} s")
    table([(figure.name, figure.value, figure.goal) for figure in figures], ["figure", "measured", "goal"])
    if broken:
        raise SystemExit(f"failed: {', '.join(broken)}")


if __name__ == "__main__":
    main()
