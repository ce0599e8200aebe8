"""What isolation costs a warm task: the same calls with and without it, in turn, on one slot and on two.

python isolation.py [--repeat 40]

The mlp client's ``train`` of `warm_call.py`. On one slot each task is submitted when the one before has ended, one
isolated, one not, and so on; on two slots so many tasks at once, of either kind in turn.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

from figures import ONE_THREAD, Figure, parser, save, spread, table
from warm_call import MLP, make_bench


def open_executor(bench, slots, isolated):
    from fedpkg.devices import cpu_slots
    from fedpkg.dispatch.forkserver import forkserver_executor
    from fedpkg.waist.order import digest_of

    folder = bench.folder / f"log-{slots}-{isolated}"
    executor = forkserver_executor(
        bench.site(),
        slots=cpu_slots(slots),
        environment={},
        log_folder=folder,
        package=bench.package,
        isolated=isolated,
    )
    executor.know(bench.spec, digest_of(bench.spec))
    return executor


def run(executor, bench, name, numbers, isolated):
    """Results of tasks submitted at once, and the seconds until all were there."""
    from fedpkg.waist.order import Isolation

    tasks = [bench.task(name, number, isolation=Isolation() if isolated else None) for number in numbers]
    started = time.perf_counter()
    results = [future.result() for future in [executor.submit(task) for task in tasks]]
    seconds = time.perf_counter() - started
    for result in results:
        if result.status != "ok":
            raise SystemExit(f"{result.task_id} failed: {result.failure}\n{result.log_tail}")
    return results, seconds


def in_turn(bench, slots, repeat, together):
    """Seconds of ``together`` tasks, and the results, without and with isolation; so often in turn."""
    seconds, results = {False: [], True: []}, {False: [], True: []}
    executors = {isolated: open_executor(bench, slots, isolated) for isolated in (False, True)}
    try:
        for turn in range(repeat + 2):
            for isolated, executor in executors.items():
                numbers = range(turn * together, (turn + 1) * together)
                name = f"{slots}-slots-{isolated}"
                done, took_s = run(executor, bench, name, numbers, isolated)
                if turn >= 2:  # the first ones find a zygote that still imports, and cold caches
                    seconds[isolated].append(took_s / together)
                    results[isolated] += done
    finally:
        for executor in executors.values():
            executor.close()
    return seconds, results


def main():
    options = parser(__doc__)
    options.add_argument("--repeat", type=int, default=40, metavar="N", help="calls of each kind (default: 40)")
    given = options.parse_args()
    os.environ.update(ONE_THREAD)
    from fedpkg.means import means

    if means().warm is None:
        raise SystemExit(f"this machine cannot isolate warm tasks: {means()}")
    # Not in /tmp, where nobody keeps a home: a task has one of its own, and to mount its folders in that takes longer.
    with tempfile.TemporaryDirectory(prefix="fedpkg-bench-", dir="/var/tmp") as folder:
        bench = make_bench(MLP, Path(folder))
        one_s, results = in_turn(bench, 1, given.repeat, 1)
        two_s, _ = in_turn(bench, 2, max(2, given.repeat // 8), 16)
    more_ms = 1000 * statistics.median(with_s - without_s for without_s, with_s in zip(*one_s.values(), strict=True))
    both_ms = 1000 * (statistics.median(two_s[True]) - statistics.median(two_s[False]))
    print(f"A warm task, isolated by {means().warm} (Landlock ABI {means().landlock}): medians (min – max), ms")
    rows = [
        ("one slot", spread(one_s[False], 1, 1000), spread(one_s[True], 1, 1000), f"{more_ms:+.1f} (goal ≤ 10)"),
        ("two slots, time per task", spread(two_s[False], 1, 1000), spread(two_s[True], 1, 1000), f"{both_ms:+.1f}"),
    ]
    table(rows, ["", "without", "isolated", "more"])
    rows = []
    for phase in results[False][0].phases:
        without, isolated = ([result.phases[phase] for result in results[kind]] for kind in (False, True))
        more = 1000 * (statistics.median(isolated) - statistics.median(without))
        rows.append((phase, spread(without, 2, 1000), spread(isolated, 2, 1000), f"{more:+.2f}"))
    print("Where: phases of the tasks on one slot")
    table(rows, ["phase", "without", "isolated", "more"])
    save(given.figures, [Figure("Isolation, ms more for a warm task", f"{more_ms:.1f}", "≤ 10")])


if __name__ == "__main__":
    main()
