"""Federated algorithms: a three-node average by each contract, a GLM at 100 nodes, and 1000 polls.

python algorithms.py [--repeat 3] [--nodes 100]

Cold is the whole command. Warm is a further session in the same program, whose executor and interpreters are kept.
Algorithms are isolated, as by default.
"""

import contextlib
import statistics
import sys
import tempfile
import time
from pathlib import Path

from figures import HERE, Figure, parser, run_measured, save, spread, table

ALGORITHMS = HERE.parent / "algorithms"
AVERAGES = {
    "v1": ("v1-average", "master", "column_name=age"),
    "v4": ("v4-average", "central_average", "column_name=age"),
    "v5": ("v5-average", "central_average", "column_name=age"),
}
POLLS = ("probes", "polls", "times=1000")
GLM = ("v5-glm", "glm", "outcome=y", "predictors=x1,x2", "family=poisson")
ROWS = 1000


def data_of(folder, count, *, rows=3):
    """A CSV file for each of these nodes; returns the pattern."""
    import numpy as np

    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        x1, x2 = rng.normal(size=(2, rows))
        y, age = rng.poisson(np.exp(0.3 + 0.5 * x1 - 0.2 * x2)), rng.integers(20, 90, rows)
        lines = "".join(f"{a},{b!r},{c!r},{d}\n" for a, b, c, d in zip(age, x1.tolist(), x2.tolist(), y, strict=True))
        (folder / f"node-{number}.csv").write_text("age,x1,x2,y\n" + lines)
    return str(folder / "*.csv")


def cold(algorithm, pattern, home):
    """Wall and processor seconds of the whole command."""
    folder, method, *arguments = algorithm
    words = [word for one in arguments for word in ("--arg", one)]
    command = [sys.executable, "-m", "fedpkg", "algorithm", "run", str(ALGORITHMS / folder), "--method", method, *words]
    wall_s, cpu_s, _ = run_measured([*command, "--database", pattern, "--home", str(home), "--json"])
    return wall_s, cpu_s


@contextlib.contextmanager
def warm(home):
    """A function that runs an algorithm in this program, and returns its seconds and its result."""
    from fedpkg.session import beginning
    from fedpkg.session.algorithm_run import AlgorithmOptions, config_of_algorithm, result_of
    from fedpkg.session.workshop import Workshop
    from fedpkg.stores.home import Home

    home = Home.open(home)
    workshop = Workshop(home)

    def run(algorithm, pattern):
        folder, method, *arguments = algorithm
        asked = AlgorithmOptions(method, arguments=arguments, databases={"default": pattern})
        began = time.perf_counter()
        row = beginning.run(
            config_of_algorithm(ALGORITHMS / folder, asked), home, watch=lambda event: None, workshop=workshop
        )
        return time.perf_counter() - began, result_of(home, row)

    with workshop.kept() as close:
        run.other = close
        yield run


def main():
    options = parser(__doc__)
    options.add_argument("--repeat", type=int, default=3, metavar="N", help="runs of each (default: 3)")
    options.add_argument("--nodes", type=int, default=100, metavar="N", help="nodes of the GLM (default: 100)")
    given = options.parse_args()
    rows, figures = [], []
    with tempfile.TemporaryDirectory(prefix="fedpkg-bench-") as name:
        folder = Path(name)
        three, many = data_of(folder / "three", 3), data_of(folder / "many", given.nodes, rows=ROWS)
        with warm(folder / "home") as run:
            for contract, algorithm in AVERAGES.items():
                pairs = [cold(algorithm, three, folder / f"cold-{contract}-{k}") for k in range(given.repeat)]
                walls, cpus = zip(*pairs, strict=True)
                run.other()
                run(algorithm, three)
                seconds = [run(algorithm, three)[0] for _ in range(given.repeat)]
                rows.append([f"average of 3 nodes, {contract}", spread(walls, 2), spread(cpus, 2), spread(seconds, 2)])
                figures += [
                    Figure(f"algorithm {contract}, whole command, s", f"{statistics.median(walls):.2f}", "< 3"),
                    Figure(f"algorithm {contract}, warm, s", f"{statistics.median(seconds):.2f}", "< 1"),
                ]
            for name, algorithm, pattern, goal in (
                ("1000 polls", POLLS, three, "< 1, beyond an average"),
                (f"GLM at {given.nodes} nodes of {ROWS} rows", GLM, many, "< 20"),
            ):
                run.other()
                run(algorithm, pattern)
                seconds, results = zip(*(run(algorithm, pattern) for _ in range(given.repeat)), strict=True)
                told = f", {results[0]['iterations']} iterations" if isinstance(results[0], dict) else ""
                rows.append([f"{name}{told}", "", "", spread(seconds, 2)])
                figures.append(Figure(f"{name}, s", f"{statistics.median(seconds):.2f}", goal))
    table(rows, ["", "whole command, s", "CPU, s", "warm, s"])
    save(given.figures, figures)


if __name__ == "__main__":
    main()
