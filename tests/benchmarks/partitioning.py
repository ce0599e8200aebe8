"""Seconds and peak memory of every partitioner on 10 million labels and 10,000 clients, each in a process of its own.

    python tests/benchmarks/partitioning.py [--examples 10_000_000] [--clients 10_000] [--classes 10] [--only dirichlet]

Memory is that of the whole process, with the array of labels (80 MB), its values for the scheme, NumPy and the result.
On a busy machine, compare the CPU seconds.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np

from fedpkg.data.partitioners import make_partitioner
from fedpkg.data.partitioners.registry import PARTITIONERS
from fedpkg.partitions.splitting import needs_of, split_examples

SECTIONS = {
    "pathological": {"classes_per_client": 2},
    "continuous": {"strictness": 0.5},
    "grouped_ids": {"group_size": 3},
    "feature_noise": {"inner": "dirichlet"},
    "rotation": {"inner": "dirichlet"},
}


def measured(name: str, examples: int, clients: int, classes: int) -> dict[str, float]:
    """One split of the training examples, in this process."""
    rng = np.random.default_rng(0)
    sections = {
        **SECTIONS,
        "distribution": {"matrix": rng.integers(1, 9, (clients, classes)).tolist()},
        "sizes": {"sizes": [examples // clients] * clients},
    }
    spec = PARTITIONERS.find("partitioner", name, None, ())
    needs = getattr(spec.make, "needs", "")
    by = {"by": "column"} if needs in ("ids", "values") else {}
    partitioner = make_partitioner({"name": name, **sections.get(name, {}), **by})
    makers = {
        "ids": lambda: rng.integers(0, clients if name == "natural_id" else 3 * clients, examples),
        "values": lambda: rng.standard_normal(examples),
    }
    values = makers.get(needs_of(partitioner), lambda: rng.integers(0, classes, examples))()
    before, wall = time.process_time(), time.perf_counter()
    split = split_examples(partitioner, values, None, clients, 0)
    wall, cpu = time.perf_counter() - wall, time.process_time() - before
    assert len(split.train) == clients and sum(map(len, split.train)) + split.dropped_train == examples
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"wall_s": wall, "cpu_s": cpu, "peak_mb": peak / 1e6, "dropped": split.dropped_train}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=10_000_000)
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--only", help="name of one partitioner")
    parser.add_argument("--here", action="store_true", help="measure it in this process, and print JSON")
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measured(options.only, options.examples, options.clients, options.classes)))
        return
    names = [spec.name for spec in PARTITIONERS.specs("partitioner") if hasattr(spec.make, "split")]
    print(f"{'partitioner':18} {'CPU s':>7} {'wall s':>7} {'peak MB':>8} {'dropped':>9}")
    for name in [options.only] if options.only else names:
        numbers = ("--examples", options.examples, "--clients", options.clients, "--classes", options.classes)
        command = [sys.executable, __file__, *map(str, numbers), "--only", name, "--here"]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        row = (found["cpu_s"], found["wall_s"], found["peak_mb"], found["dropped"])
        print("{:18} {:7.2f} {:7.2f} {:8.0f} {:9d}".format(name, *row), flush=True)


if __name__ == "__main__":
    main()
