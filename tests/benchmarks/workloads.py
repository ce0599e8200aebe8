"""The three workloads: whole processes of fedpkg against a plain PyTorch loop, one after the other in turn.

python workloads.py w1 w2 w3 [--repeat 3] [--executor forkserver] [--fedpkg "python -m fedpkg"]

Timed runs are not watched; memory is sampled in one more run of each. Everything is measured from outside, or read from
the store of the finished run.
"""

import contextlib
import itertools
import json
import os
import shlex
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from figures import HERE, ONE_THREAD, Figure, parser, run_measured, save, spread, table
from memory import peak_memory

CONFIGS = {
    name: HERE / "packages" / package / f"{name}.yaml"
    for name, package in [("w1", "mlp"), ("w2", "mlp"), ("w3", "add-one")]
}
GOALS = {
    ("w1", "forkserver"): {"whole process": "≤ 1.5", "a round": "≤ 4.5 (goal 3.5)"},
    ("w1", "resident"): {"a round": "≤ 1.0 (goal 0.8)"},
}


@dataclass
class Runs:
    """What was seen of one system on one workload, over the repetitions."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    later_rounds_s: list[float] = field(default_factory=list)  # the median of a run's rounds after the first
    rounds_s: list[float] = field(default_factory=list)  # the median of all
    all_rounds_s: list[float] = field(default_factory=list)  # their sum
    first_round_s: list[float] = field(default_factory=list)
    rss_mb: float = 0.0
    pss_mb: float | None = None
    model: dict = field(default_factory=dict)  # norm and digest of the final weights
    phases: dict[str, list[float]] = field(default_factory=dict)  # of a round
    task_phases: dict[str, list[float]] = field(default_factory=dict)

    def add(self, wall_s, cpu_s, rounds_s):
        self.wall_s.append(wall_s)
        self.cpu_s.append(cpu_s)
        self.first_round_s.append(rounds_s[0])
        self.later_rounds_s.append(statistics.median(rounds_s[1:]))
        self.rounds_s.append(statistics.median(rounds_s))
        self.all_rounds_s.append(sum(rounds_s))


class Plain:
    def __init__(self, workload):
        self.command = [sys.executable, str(HERE / "plain.py"), workload, "--json"]
        self.runs = Runs()

    def time_once(self):
        wall_s, cpu_s, out = run_measured(self.command, env=os.environ | ONE_THREAD)
        self.runs.add(wall_s, cpu_s, json.loads(out)["rounds_s"])

    def weigh(self):
        self.runs.rss_mb, self.runs.pss_mb, out = peak_memory([*self.command, "--digest"], env=os.environ | ONE_THREAD)
        self.runs.model = json.loads(out)


class Fedpkg:
    def __init__(self, workload, *, program, executor):
        self.command = [*program, "run", str(CONFIGS[workload]), f"executor.name={executor}"]
        self.runs = Runs()

    def time_once(self):
        with tempfile.TemporaryDirectory(prefix="fedpkg-bench-") as home:
            wall_s, cpu_s, _ = run_measured([*self.command, "--home", home])
            self.runs.add(wall_s, cpu_s, self._read_rounds(Path(home)))

    def weigh(self):
        with tempfile.TemporaryDirectory(prefix="fedpkg-bench-") as home, open(os.devnull, "w") as nowhere:
            self.runs.rss_mb, self.runs.pss_mb, _ = peak_memory([*self.command, "--home", home], stderr=nowhere)
            self.runs.model = self._identify_model(Path(home))

    def _read_rounds(self, root):
        """Seconds of each round, from the end of the one before; keeps the phases of all but the first."""
        with _open_store(root) as store:
            session_id = store.list_sessions()[-1].session_id
            rounds = store.list_rounds(session_id)
            tasks = store.list_tasks(session_id)
        for task in tasks:
            if task.status != "ok":
                raise SystemExit(
                    f"{task.task_id} failed, so there is nothing to compare: {task.message}\n{task.log_tail}"
                )
        ends = [rounds[0].started_at, *[row.finished_at for row in rounds]]
        seconds = [end - start for start, end in itertools.pairwise(ends)]
        for row, whole_s in zip(rounds[1:], seconds[1:], strict=True):
            for name, value in row.phases.items():
                self.runs.phases.setdefault(name, []).append(value)
            self.runs.phases.setdefault("(rest)", []).append(whole_s - sum(row.phases.values()))
        for task in (task for task in tasks if task.round_number > 1):
            for name, value in task.phases.items():
                self.runs.task_phases.setdefault(name, []).append(value)
            self.runs.task_phases.setdefault("(rest)", []).append(task.wall_s - sum(task.phases.values()))
            self.runs.task_phases.setdefault("whole task", []).append(task.wall_s)
        return seconds

    def _identify_model(self, root):
        from checksum import identify

        from fedpkg.formats.model_file import read_model
        from fedpkg.stores.home import Home
        from fedpkg.stores.models import ModelStore

        with _open_store(root) as store:
            row = store.get_model(store.list_sessions()[-1].session_id)
        return identify(read_model(ModelStore(Home(root).models).path(row.digest, row.suffix)))


@contextlib.contextmanager
def _open_store(root):
    from fedpkg.stores.home import Home
    from fedpkg.stores.opening import open_store

    with open_store(Home(root)) as store:
        yield store


def ratios(above, below):
    """Medians' ratio, as text, with the extremes over pairs of neighbouring runs."""
    pairs = [a / b for a, b in zip(above, below, strict=True)]
    middle = f"{statistics.median(above) / statistics.median(below):.2f}"
    return middle if len(pairs) == 1 else f"{middle} ({min(pairs):.2f} – {max(pairs):.2f})"


def report(workload, executor, plain, fedpkg):
    """Print the tables of one workload; its figures."""
    goals = GOALS.get((workload, executor), {})
    ratio_of = "fedpkg / plain" if executor == "forkserver" else f"fedpkg ({executor}) / plain"
    rows, figures = [], []
    for name, attribute, unit, scale, digits in [
        ("whole process", "wall_s", "s", 1, 2),
        ("CPU of all processes", "cpu_s", "s", 1, 2),
        ("a round", "later_rounds_s", "ms", 1000, 1),
        ("a round, with the first", "rounds_s", "ms", 1000, 1),
        ("the first round", "first_round_s", "ms", 1000, 1),
    ]:
        ours, theirs = getattr(fedpkg, attribute), getattr(plain, attribute)
        ratio = ratios(ours, theirs)
        rows.append(
            (f"{name}, {unit}", spread(theirs, digits, scale), spread(ours, digits, scale), ratio, goals.get(name, ""))
        )
        if attribute in ("wall_s", "later_rounds_s"):
            figures.append(Figure(f"{workload.upper()} {name}, {ratio_of}", ratio, goals.get(name, "")))
    for name, ours, theirs in [
        ("peak RSS of the tree, MB", fedpkg.rss_mb, plain.rss_mb),
        ("peak PSS of the tree, MB", fedpkg.pss_mb, plain.pss_mb),
    ]:
        if ours and theirs:
            rows.append((name, f"{theirs:.0f}", f"{ours:.0f}", f"{ours / theirs:.2f}", ""))
            figures.append(Figure(f"{workload.upper()} {name}, {ratio_of}", f"{ours:.0f} / {theirs:.0f}"))
    if fedpkg.model:
        norms = [f"{runs.model['norm']:.4f}" for runs in (plain, fedpkg)]
        if plain.model["sha256"] == fedpkg.model["sha256"]:
            rows.append(("norm of the final weights", *norms, "same bits", ""))
        else:
            rows.append(("norm of the final weights", *norms, f"{fedpkg.model['norm'] / plain.model['norm']:.4f}", ""))
    print(f"{workload.upper()}: medians (min – max) of {len(plain.wall_s)}")
    table(rows, ["", "plain", "fedpkg", "ratio", "goal"])

    print(f"{workload.upper()}: where a round of fedpkg goes, ms (rounds after the first)")
    table([(name, spread(values, 1, 1000)) for name, values in fedpkg.phases.items()], ["phase", "median (min – max)"])
    print(f"{workload.upper()}: where a task goes, ms (the same rounds; tasks run two at a time)")
    table(
        [(name, spread(values, 2, 1000)) for name, values in fedpkg.task_phases.items()],
        ["phase", "median (min – max)"],
    )
    return figures


def check_model(workload, plain, fedpkg):
    """Both must have done the same arithmetic: W3 exactly, the others but for their draws of dropout and clients."""
    if workload == "w3" and plain.model["sha256"] != fedpkg.model["sha256"]:
        raise SystemExit("W3: the final weights of fedpkg and of the plain loop differ")
    if abs(fedpkg.model["norm"] / plain.model["norm"] - 1) > 0.01:
        raise SystemExit(f"{workload.upper()}: the norms of the final weights differ by more than 1 %")


def main():
    options = parser(__doc__)
    options.add_argument("workloads", nargs="*", default=["w1", "w2", "w3"], metavar="w1|w2|w3")
    options.add_argument("--repeat", type=int, default=3, metavar="N", help="timed runs of each (default: 3)")
    options.add_argument("--executor", default="forkserver", help="forkserver (default), resident or process")
    options.add_argument(
        "--no-memory", action="store_true", help="leave out the runs that sample memory and compare models"
    )
    options.add_argument(
        "--fedpkg", default=f"{shlex.quote(sys.executable)} -m fedpkg", metavar="COMMAND", help="how to start it"
    )
    given = options.parse_args()
    if unknown := set(given.workloads) - set(CONFIGS):
        options.error(f"unknown workload {', '.join(sorted(unknown))}; there are {', '.join(CONFIGS)}")

    figures = []
    for workload in given.workloads:
        plain = Plain(workload)
        fedpkg = Fedpkg(workload, program=shlex.split(given.fedpkg), executor=given.executor)
        for _ in range(given.repeat):
            plain.time_once()
            fedpkg.time_once()
        if not given.no_memory:
            plain.weigh()
            fedpkg.weigh()
        figures += report(workload, given.executor, plain.runs, fedpkg.runs)
        if not given.no_memory:
            check_model(workload, plain.runs, fedpkg.runs)
    save(given.figures, figures)


if __name__ == "__main__":
    main()
