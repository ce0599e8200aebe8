"""Peak memory of reading a numeric CSV file of a node, as a multiple of its DataFrame: ours, and `pandas.read_csv`.

python algorithm_data.py [--rows 10000000] [--columns 4]

Each is read in a process of its own. The goal is below twice the memory of the frame, which both ways give equally.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from figures import ONE_THREAD, Figure, parser, save, table

READ = """
import json, resource, sys, time
import duckdb, numpy, pandas
from fedpkg.analytics.databases import read

before = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
started = time.perf_counter()
frame = read(sys.argv[2], "csv") if sys.argv[1] == "fedpkg" else pandas.read_csv(sys.argv[2])
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
digest = int(pandas.util.hash_pandas_object(frame.iloc[::1000]).sum())
print(json.dumps([peak - before, peak, int(frame.memory_usage().sum()), seconds, digest]))
"""


def write(path, rows, columns):
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(0)
    for start in range(0, rows, 500_000):
        size = min(500_000, rows - start)
        values = {
            f"c{number}": rng.normal(size=size).round(4) if number % 2 else rng.integers(0, 100_000, size)
            for number in range(columns)
        }
        pd.DataFrame(values).to_csv(path, mode="a", header=start == 0, index=False)


def main():
    options = parser(__doc__)
    options.add_argument("--rows", type=int, default=10_000_000)
    options.add_argument("--columns", type=int, default=4)
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="fedpkg-csv-") as folder:
        path = Path(folder) / "data.csv"
        write(path, given.rows, given.columns)
        found = {}
        for way in ("fedpkg", "pandas"):
            command = [sys.executable, "-c", READ, way, str(path)]
            done = subprocess.run(command, env={**os.environ, **ONE_THREAD}, check=True, capture_output=True, text=True)
            found[way] = json.loads(done.stdout)
    assert found["fedpkg"][-1] == found["pandas"][-1], "the frames differ"
    rows = [
        [way, f"{size / 1e6:.0f} MB", f"{more / size:.2f}", f"{peak / size:.2f}", f"{seconds:.1f}"]
        for way, (more, peak, size, seconds, _) in found.items()
    ]
    table(rows, ["read by", "frame", "peak - before / frame", "peak / frame", "s"])
    more, _, size, *_ = found["fedpkg"]
    save(given.figures, [Figure("memory of reading a numeric CSV / its frame", f"{more / size:.2f}", "below 2")])


if __name__ == "__main__":
    main()
