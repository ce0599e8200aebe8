"""A warm call of an entry point against the same function in process, and where the difference goes.

python warm_call.py [--repeat 30]

The mlp client's ``train`` (read a model, train it for an epoch on 600 examples, write it) runs (a) as a function in
this process, its files in place; (b) as tasks of a forkserver executor with one slot, one after the other; (c) with two
slots, all queued at once; (d) as (b), of a resident executor. A last series runs the client with a stopwatch in it, in
process and in (b).
"""

import importlib.util
import json
import os
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from figures import HERE, ONE_THREAD, Figure, parser, save, spread, table

MLP = HERE / "packages" / "mlp"


@dataclass
class Bench:
    """A package on disk, its seed model, and a folder for tasks."""

    package: object
    model: Path
    folder: Path

    @cached_property
    def spec(self):
        """What an update must be."""
        from fedpkg.formats.model_file import read_model
        from fedpkg.replies.reading import tensors_of
        from fedpkg.types import ReplyKind
        from fedpkg.waist.order import ReplySpec

        return ReplySpec(kind=ReplyKind.UPDATE, tensors=tensors_of(read_model(self.model)))

    def site(self):
        from fedpkg.dispatch.site import Site

        return Site(self.folder, self.package)

    def task(self, name, number, **fields):
        from fedpkg.waist.order import Input, Order, digest_of

        return Order(
            task_id=f"{name}/{number}",
            session_id=name,
            round_number=1,
            client_id=f"client-{number}",
            entry_point="train",
            package=self.package.digest,
            reply_spec=digest_of(self.spec),
            partition_id=number,
            input=Input(reference=str(self.model), size_bytes=self.model.stat().st_size),
            **fields,
        )


def load_module(path):
    spec = importlib.util.spec_from_file_location(f"bench_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_bench(source, folder):
    from fedpkg.compute_package.unpack import open_package
    from fedpkg.dispatch.site import PackageOnDisk

    opened = open_package(source, folder / "packages")
    package = PackageOnDisk(digest=opened.digest, root=opened.root, folder=opened.folder, spec=opened.spec)
    model = folder / "seed.npz"
    load_module(MLP / "entrypoint.py").init_seed(model)
    return Bench(package, model, folder)


def call_in_process(bench, repeat, call):
    """Call ``call(in_path, out_path)`` with files and task.json laid out beforehand; seconds of each call."""
    seconds = []
    for number in range(repeat):
        folder = bench.folder / "in-process" / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bench.model, folder / "in.npz")
        (folder / "task.json").write_text(json.dumps({"partition_id": number}))
        os.environ["FEDPKG_TASK"] = str(folder / "task.json")
        started = time.perf_counter()
        call(str(folder / "in.npz"), str(folder / "out.npz"))
        seconds.append(time.perf_counter() - started)
    return seconds


def call_executor(bench, repeat, name, *, slots, resident=False):
    """Tasks through a warm executor: ``(results, seconds of each as the caller waits, seconds of all)``.

    The first task of a slot finds its zygote still importing: as many as there are slots go ahead, unmeasured.
    With one slot each task is submitted when the one before has ended, with more all at once.
    """
    from fedpkg.devices import cpu_slots
    from fedpkg.dispatch.forkserver import forkserver_executor
    from fedpkg.dispatch.resident import resident_executor
    from fedpkg.waist.order import digest_of

    make_executor = resident_executor if resident else forkserver_executor
    log = bench.folder / "log"
    executor = make_executor(
        bench.site(), slots=cpu_slots(slots), environment={}, log_folder=log, package=bench.package
    )
    executor.know(bench.spec, digest_of(bench.spec))
    try:
        for future in [executor.submit(bench.task(f"{name}-warm-up", number)) for number in range(2 * slots)]:
            future.result()
        tasks = [bench.task(name, number) for number in range(repeat)]
        results, waited_s = [], []
        began = time.perf_counter()
        if slots == 1:
            for task in tasks:
                started = time.perf_counter()
                results.append(executor.submit(task).result())
                waited_s.append(time.perf_counter() - started)
        else:
            results = [future.result() for future in [executor.submit(task) for task in tasks]]
        all_s = time.perf_counter() - began
    finally:
        executor.close()
    for result in results:
        if result.status != "ok":
            raise SystemExit(f"{result.task_id} failed: {result.failure}\n{result.log_tail}")
    return results, waited_s, all_s


def probe_series(folder, repeat):
    """The client with a stopwatch: its parts in process and in warm tasks, each a list of ``{part: (ms, faults)}``."""
    source = folder / "mlp-with-stopwatch"
    shutil.copytree(MLP, source, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(HERE / "probe.py", source / "probe.py")
    (source / "fedn.yaml").write_text("entry_points:\n  train:\n    command: python probe.py train\n")
    bench = make_bench(source, folder)
    probe, client = load_module(HERE / "probe.py"), load_module(MLP / "entrypoint.py")
    in_process = []

    def call(in_path, out_path):
        watch = probe.Stopwatch()
        probe.timed_train(client, in_path, out_path, watch)
        in_process.append(watch.parts)

    call_in_process(bench, repeat + 2, call)
    results, _, _ = call_executor(bench, repeat, "probe", slots=1)
    return in_process[2:], [result.metadata["probe"] for result in results]


def main():
    options = parser(__doc__)
    options.add_argument("--repeat", type=int, default=30, metavar="N", help="calls of each kind (default: 30)")
    given = options.parse_args()
    os.environ.update(ONE_THREAD)
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="fedpkg-bench-") as folder:
        bench = make_bench(MLP, Path(folder))
        client = load_module(MLP / "entrypoint.py")
        first_s, *direct_s = call_in_process(bench, given.repeat + 1, client.train)
        results, waited_s, _ = call_executor(bench, given.repeat, "one-slot", slots=1)
        _, _, together_s = call_executor(bench, given.repeat, "two-slots", slots=2)
        _, resident_s, _ = call_executor(bench, given.repeat, "resident", slots=1, resident=True)
        in_process, in_task = probe_series(Path(folder) / "probe", given.repeat)

    direct_ms = 1000 * statistics.median(direct_s)
    warm_ms = 1000 * statistics.median(waited_s)
    more = f"{warm_ms - direct_ms:.1f}"
    resident_more = f"{1000 * statistics.median(resident_s) - direct_ms:.1f}"
    print(f"A warm call: medians (min – max) of {given.repeat}, ms")
    table(
        [
            ("(a) in process", spread(direct_s, 1, 1000)),
            ("(b) a warm task, one slot", spread(waited_s, 1, 1000)),
            ("(b) – (a)", f"{more} (goal ≤ 30, at most 45)"),
            ("(c) two slots, time per task", f"{1000 * together_s / given.repeat:.1f}"),
            ("(d) a resident task, one slot", spread(resident_s, 1, 1000)),
            ("(d) – (a)", f"{resident_more} (at most 3)"),
            ("the first call in process, which imports the optimiser", f"{1000 * first_s:.0f}"),
        ],
        ["", "ms"],
    )

    phases = {name: [result.phases[name] for result in results] for name in results[0].phases}
    phases["(rest of the task)"] = [result.wall_s - sum(result.phases.values()) for result in results]
    phases["to and from the slot's thread"] = [
        waited - result.wall_s for waited, result in zip(waited_s, results, strict=True)
    ]
    print("Where the milliseconds of (b) go")
    table([(name, spread(values, 2, 1000)) for name, values in phases.items()], ["phase", "ms"])

    rows = []
    for part in in_task[0]:
        ours = [parts[part] for parts in in_task]
        theirs = [parts[part] for parts in in_process if part in parts]
        ours_ms = statistics.median(ms for ms, _ in ours)
        theirs_ms = statistics.median([ms for ms, _ in theirs] or [0.0])
        faults = [round(statistics.median([faults for _, faults in series] or [0])) for series in (theirs, ours)]
        rows.append((part, f"{theirs_ms:.2f}", f"{ours_ms:.2f}", f"{ours_ms - theirs_ms:+.2f}", *map(str, faults)))
    sums = [sum(float(row[column]) for row in rows) for column in (1, 2, 3)]
    fault_sums = [sum(int(row[column]) for row in rows) for column in (4, 5)]
    rows.append(("sum", f"{sums[0]:.2f}", f"{sums[1]:.2f}", f"{sums[2]:+.2f}", *map(str, fault_sums)))
    print("Inside the script: first calls and page faults, medians (with a stopwatch in the client, without fire)")
    table(rows, ["part", "in process, ms", "warm task, ms", "more", "faults in process", "faults in the task"])

    save(
        given.figures,
        [
            Figure("A warm call, ms more than in process", more, "≤ 45 (goal 30)"),
            Figure("A resident call, ms more than in process", resident_more, "≤ 3"),
            Figure("A warm call, ms", f"{warm_ms:.1f}"),
            Figure("The same function in process, ms", f"{direct_ms:.1f}"),
            Figure("Two slots, ms per task", f"{1000 * together_s / given.repeat:.1f}"),
        ],
    )


if __name__ == "__main__":
    main()
