"""The controller's own processor time per task: at an executor that answers at once, and under `resident` on W2.

python controller_cost.py [--repeat 5] [--clients 256] [--rounds 5]

At the fake executor a client's answer is a small file that was prepared; the time of writing it is not counted, neither
the processor's nor the clock's. Under `resident` only the controller's process counts, with its local executor: not the
keepers, the warm interpreters and their tasks. The first round of each session is left out.

On a machine that has other work, tasks a second say how much of it was left: beside them stands how long the
controller's main thread waited for a processor, for each task (Linux).
"""

import contextlib
import io
import json
import logging
import os
import tempfile
import time
from concurrent.futures import Future
from pathlib import Path

from figures import HERE, ONE_THREAD, Figure, parser, save, spread, table

os.environ.update(ONE_THREAD)

import numpy as np

from fedpkg.config_reading import config_of
from fedpkg.controller.events import RoundFinished
from fedpkg.dispatch.client_states import OnSite
from fedpkg.files import tree_checksum
from fedpkg.session import beginning, executors
from fedpkg.session.configuration import load, resolved
from fedpkg.stores.home import Home
from fedpkg.types import ReplyKind
from fedpkg.waist.answer import Answer, ReplyFile
from fedpkg.waist.place import reply_of

PACKAGE = "entry_points:\n  train:\n    command: bash train\n  validate:\n    command: bash validate\n"
SHAPES = {"fc1.weight": (64, 784), "fc1.bias": (64,), "fc2.weight": (32, 64), "fc2.bias": (32,)} | {
    "fc3.weight": (10, 32),
    "fc3.bias": (10,),
}


class AtOnce(OnSite):
    """An executor whose clients have answered before they are asked.

    ``wrote``: what it took to write what they answered, as `clocks`.
    """

    slots = 1
    is_warming = False
    is_ours = True

    def __init__(self, site):
        super().__init__(site)
        self.wrote = np.zeros(3)
        content = io.BytesIO()
        np.savez(content, **model())
        said = {"num_examples": 600, "loss": 0.5}
        self.replies = {
            ReplyKind.UPDATE: {"out.npz": content.getvalue(), "out.npz-metadata": json.dumps(said).encode()},
            ReplyKind.METRICS: {"out.json": json.dumps({"accuracy": 0.5, **said}).encode()},
        }
        self.checksums = {}
        self.kinds = {}

    def know(self, spec, digest):
        super().know(spec, digest)
        self.kinds[digest] = spec.kind

    def submit(self, order):
        began = clocks(time.thread_time)
        kind = self.kinds[order.reply_spec]
        name = f"sessions/{order.session_id}/round-{order.round_number}/{order.client_id}/{order.call}"
        folder, files = reply_of(self.site.home / name), self.replies[kind]
        os.makedirs(folder)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        if kind not in self.checksums:
            self.checksums[kind] = tree_checksum(folder)
        path, content = next(iter(files.items()))
        is_update = kind is ReplyKind.UPDATE
        answer = Answer(
            task_id=order.task_id,
            status="ok",
            reply=ReplyFile(name=path, size_bytes=len(content), checksum=self.checksums[kind]),
            num_examples=600.0 if is_update else None,
            metadata={"num_examples": 600, "loss": 0.5} if is_update else {},
            metrics=None if is_update else json.loads(content),
            folder=name,
            started_at=time.time(),
            wall_s=0.01,
            phases={"stage": 0.001, "run": 0.008, "collect": 0.001},
        )
        done = Future()
        done.set_result(answer)
        self.wrote += clocks(time.thread_time) - began
        return done

    def cancel(self, task_id):
        """Too late."""

    def close(self):
        """Nothing runs."""


def clocks(processor_time):
    """Processor time, wall time, and how long this thread has waited for a processor (0 if the system does not say)."""
    try:
        waited_s = int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        waited_s = 0.0
    return np.array([processor_time(), time.perf_counter(), waited_s])


def model():
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in SHAPES.items()}


@contextlib.contextmanager
def answered_at_once(made):
    """Sessions get an executor that answers at once; it is appended to ``made``."""
    usual = executors.make_executor

    def make(config, site, *_, **__):
        made.append(AtOnce(site))
        return made[-1]

    executors.make_executor = make
    try:
        yield
    finally:
        executors.make_executor = usual


def fake_config(folder, *, clients, rounds, validates):
    package = folder / "package"
    package.mkdir()
    (package / "fedn.yaml").write_text(PACKAGE)
    for name in ("train", "validate"):  # which are never run
        (package / name).touch()
    np.savez(folder / "seed.npz", **model())
    tree = {
        "package": str(package),
        "seed_model": str(folder / "seed.npz"),
        "rounds": rounds,
        "clients": {"count": clients},
        "validation": {"every": int(validates)},
        "executor": {"workers": 1, "threads": 1},
        "limits": {"memory_bytes": None},
    }
    return config_of(tree, {}, resolve=resolved)


def measure(config, home, made=()):
    """A session's ms of processor time per task, tasks a second, ms of waiting per task; without its first round."""
    seen = []

    def watch(event):
        if isinstance(event, RoundFinished):
            tasks = len(event.round.cohort) * (2 if event.round.metrics else 1)
            seen.append((clocks(time.process_time) - sum(one.wrote for one in made), tasks))

    beginning.run(config, Home.open(home), watch)
    cpu_s, wall_s, waited_s = (seen[-1][0] - seen[0][0]) / sum(tasks for _, tasks in seen[1:])
    return 1000 * cpu_s, 1 / wall_s, 1000 * waited_s


def measure_fake(clients, rounds, *, validates):
    made = []
    with tempfile.TemporaryDirectory(prefix="fedpkg-bench-") as folder, answered_at_once(made):
        config = fake_config(Path(folder), clients=clients, rounds=rounds, validates=validates)
        return measure(config, Path(folder) / "home", made)


def measure_resident(rounds):
    with tempfile.TemporaryDirectory(prefix="fedpkg-bench-") as home:
        overrides = ["executor.name=resident", f"rounds={rounds}"]
        return measure(load(HERE / "packages" / "mlp" / "w2.yaml", overrides).config, Path(home))


def main():
    options = parser(__doc__)
    options.add_argument("--repeat", type=int, default=5, metavar="N", help="sessions of each (default: 5)")
    options.add_argument("--clients", type=int, default=256, metavar="N", help="at the fake executor (default: 256)")
    options.add_argument("--rounds", type=int, default=5, metavar="N", help="of each session (default: 5)")
    given = options.parse_args()
    import torch

    torch.set_num_threads(1)
    logging.getLogger("fedpkg").setLevel(logging.INFO)
    kinds = {
        "answered at once, train": lambda: measure_fake(given.clients, given.rounds, validates=False),
        "answered at once, train and validate": lambda: measure_fake(given.clients, given.rounds, validates=True),
        "resident, W2": lambda: measure_resident(given.rounds),
    }
    found = {name: [] for name in kinds}
    for _ in range(given.repeat):
        for name, run in kinds.items():
            found[name].append(run())
    print(f"The controller's own processor time: medians (min – max) of {given.repeat}")
    rows = [
        (name, *(spread(values, digits) for values, digits in zip(zip(*series, strict=True), (2, 0, 2), strict=True)))
        for name, series in found.items()
    ]
    table(rows, ["", "ms a task", "tasks a second", "waited for a processor, ms a task"])
    goals = [("≤ 1.5 (goal 1)", "≥ 1000"), ("≤ 1.5 (goal 1)", "≥ 1000"), ("", "")]
    figures = []
    for (name, ms, rate, _), (cpu_goal, rate_goal) in zip(rows, goals, strict=True):
        figures.append(Figure(f"Controller, ms of CPU a task: {name}", ms, cpu_goal))
        figures.append(Figure(f"Controller, tasks a second: {name}", rate, rate_goal))
    save(given.figures, figures)


if __name__ == "__main__":
    main()
