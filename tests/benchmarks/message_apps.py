"""The three workloads as message apps, as the same clients in compute packages, and as a plain loop, in turn.

python message_apps.py [w1 w2 w3 ping] [--repeat 3] [--executor forkserver]

The apps are those of packages/*-app, with FedAvg under flwr's names; the clients' code is that of packages/mlp and
packages/add-one. Processor time is that of all processes, which a busy machine changes least. ``ping`` is 1000 nodes,
each with its own message of 1 kB and a task that gives it back, on resident interpreters: what a round takes beside its
tasks is the coordinator's.
"""

import contextlib
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from figures import HERE, ONE_THREAD, Figure, parser, save, spread, table
from workloads import Fedpkg, Plain, Runs, ratios

PACKAGES = HERE / "packages"
APPS = {
    "w1": ("mlp-app", 10, ["num-server-rounds=5"]),
    "w2": ("mlp-app", 1000, ["num-server-rounds=3", "fraction-train=0.1"]),
    "w3": ("add-one-app", 8, ["num-server-rounds=3"]),
    "ping": ("ping-app", 1000, ["num-server-rounds=3"]),
}
WHOLE = {"w1": "≤ 1.5", "w2": "≤ 2.2", "w3": "≤ 2.9"}  # of plain; of the original: 4.1, 4.6 and 6.0
A_ROUND = {"w1": "≤ 1.2", "w2": "≤ 1.2", "w3": "≤ 1.2"}  # of the compute package


class MessageApp(Fedpkg):
    """A message app; it needs no run.yaml."""

    def __init__(self, workload, app, *, executor):
        _, nodes, words = APPS[workload]
        options = ["run.executor.workers=2", "run.executor.threads=1", f"run.executor.name={executor}"]
        self.command = [sys.executable, "-m", "fedpkg", "run", str(app), "--nodes", str(nodes), *words, *options]
        self.runs = Runs()


@contextlib.contextmanager
def folder_of(workload):
    """The app's folder, with the client of the compute package."""
    with tempfile.TemporaryDirectory(prefix="fedpkg-bench-") as folder:
        name = APPS[workload][0]
        app = Path(shutil.copytree(PACKAGES / name, Path(folder) / name, ignore=shutil.ignore_patterns("__pycache__")))
        if name == "mlp-app":
            shutil.copy(PACKAGES / "mlp" / "entrypoint.py", app)
        yield app


def compare(workload, *, repeat, executor, with_models):
    """Print the table of one workload; its figures."""
    with folder_of(workload) as app:
        plain = Plain(workload)
        package = Fedpkg(workload, program=[sys.executable, "-m", "fedpkg"], executor=executor)
        message_app = MessageApp(workload, app, executor=executor)
        systems = {"plain": plain, "package": package, "app": message_app}
        for _ in range(repeat):
            for system in systems.values():
                system.time_once()
        if with_models:
            package.weigh()
            message_app.weigh()
    rows = []
    for name, attribute, unit, scale, digits in [
        ("whole process", "wall_s", "s", 1, 2),
        ("CPU of all processes", "cpu_s", "s", 1, 2),
        ("a round", "later_rounds_s", "ms", 1000, 1),
        ("the first round", "first_round_s", "ms", 1000, 1),
    ]:
        found = [getattr(system.runs, attribute) for system in systems.values()]
        cells = [spread(values, digits, scale) for values in found]
        rows.append((f"{name}, {unit}", *cells, ratios(found[2], found[0]), ratios(found[2], found[1])))
    if with_models:
        sizes = [package.runs.rss_mb, message_app.runs.rss_mb]
        rows.append(
            ("peak RSS of the tree, MB", "", *[f"{one:.0f}" for one in sizes], "", f"{sizes[1] / sizes[0]:.2f}")
        )
    print(f"{workload.upper()} ({executor}): medians (min – max) of {repeat}")
    table(rows, ["", "plain", "compute package", "message app", "app / plain", "app / package"])
    print(f"{workload.upper()}: where a round goes, ms (rounds after the first)")
    phases = dict.fromkeys([*package.runs.phases, *message_app.runs.phases])
    both = [
        [name, *[spread(one.runs.phases.get(name, []), 1, 1000) for one in (package, message_app)]] for name in phases
    ]
    table(both, ["phase", "compute package", "message app"])
    # W2 draws its clients otherwise.
    if with_models and workload != "w2" and package.runs.model["sha256"] != message_app.runs.model["sha256"]:
        raise SystemExit(f"{workload.upper()}: the final weights of the message app and of the compute package differ")
    runs = {name: system.runs for name, system in systems.items()}
    name = f"{workload.upper()} as a message app"
    return [
        Figure(f"{name}, whole, / plain", ratios(runs["app"].wall_s, runs["plain"].wall_s), WHOLE[workload]),
        Figure(
            f"{name}, a round / compute package",
            ratios(runs["app"].later_rounds_s, runs["package"].later_rounds_s),
            A_ROUND[workload],
        ),
        Figure(f"{name}, CPU / compute package", ratios(runs["app"].cpu_s, runs["package"].cpu_s)),
    ]


def ping(*, repeat, executor):
    """Print what a round of small messages takes; its figure."""
    tasks, beside, whole = [], [], []
    with folder_of("ping") as folder:
        app = MessageApp("ping", folder, executor=executor)
        for _ in range(repeat):
            app.runs = Runs()
            app.time_once()
            tasks.append(statistics.median(app.runs.phases.get("train", [])))
            whole.append(statistics.median(app.runs.later_rounds_s))
            beside.append(whole[-1] - tasks[-1])
    print(f"1000 nodes, messages of 1 kB ({executor}): a round, medians (min – max) of {repeat}")
    named = {"tasks": tasks, "coordinator, and all else": beside, "whole": whole}
    table([(name, spread(values, 2)) for name, values in named.items()], ["", "s"])
    return [Figure("1000 nodes' messages of 1 kB, beside the tasks, s", spread(beside, 2), "< 1")]


def main():
    options = parser(__doc__)
    options.add_argument("workloads", nargs="*", default=list(APPS), metavar="w1|w2|w3|ping")
    options.add_argument("--repeat", type=int, default=3, metavar="N", help="timed runs of each (default: 3)")
    options.add_argument("--executor", default="forkserver", help="forkserver (default), resident or process")
    options.add_argument("--no-memory", action="store_true", help="leave out the runs that compare memory and models")
    given = options.parse_args()
    if unknown := set(given.workloads) - set(APPS):
        options.error(f"unknown workload {', '.join(sorted(unknown))}; there are {', '.join(APPS)}")
    os.environ.update(ONE_THREAD)
    figures = []
    for workload in given.workloads:
        if workload == "ping":
            figures += ping(repeat=given.repeat, executor="resident")
        else:
            figures += compare(workload, repeat=given.repeat, executor=given.executor, with_models=not given.no_memory)
    save(given.figures, figures)


if __name__ == "__main__":
    main()
