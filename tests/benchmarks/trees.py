"""A tree of combiners of depth 4 over 10,000 clients, 1000 a round, against the flat round.

python trees.py [--repeat 3] [--rounds 3]

At the executor of ``controller_cost.py``, which answers at once: what the controller alone does, its processor time and
the peak of its memory (mapped files left out). With the tasks of W2 under `resident`: seconds of a round.
"""

import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import msgspec
from controller_cost import answered_at_once, fake_config, measure
from figures import Figure, parser, save, spread, table
from workloads import Fedpkg, ratios

CLIENTS, SHARE, FANOUT = 10_000, 0.1, [4, 8, 16]
TREES = {"flat": None, "tree": {"fanout": FANOUT}}


def rss_mb():
    with open("/proc/self/status") as file:
        fields = dict(line.split(":", 1) for line in file)
    return int(fields["RssAnon"].split()[0]) / 1000


def alone(name, rounds):
    """Milliseconds of processor time a task, and the peak of memory in MB, of a controller in this process."""
    peak, done = [rss_mb()], threading.Event()

    def watch():
        while not done.wait(0.005):
            peak.append(rss_mb())

    thread = threading.Thread(target=watch)
    thread.start()
    made = []
    try:
        with tempfile.TemporaryDirectory(prefix="fedpkg-bench-") as folder, answered_at_once(made):
            config = fake_config(Path(folder), clients=CLIENTS, rounds=rounds, validates=False)
            config = msgspec.structs.replace(
                config, topology=TREES[name], sampler={**config.sampler, "fraction_train": SHARE}
            )
            cpu_ms, _, _ = measure(config, Path(folder) / "home", made)
    finally:
        done.set()
        thread.join()
    return cpu_ms, max(peak)


def main():
    options = parser(__doc__)
    options.add_argument("--repeat", type=int, default=3, metavar="N", help="sessions of each (default: 3)")
    options.add_argument("--rounds", type=int, default=3, metavar="N", help="of each session (default: 3)")
    options.add_argument("--alone", choices=TREES, help="only this controller, as JSON on standard output")
    given = options.parse_args()
    if given.alone:
        import torch

        torch.set_num_threads(1)
        print(json.dumps(alone(given.alone, given.rounds)))
        return
    systems = {}
    for name, topology in TREES.items():
        systems[name] = Fedpkg("w2", program=[sys.executable, "-m", "fedpkg"], executor="resident")
        systems[name].command += [f"clients.count={CLIENTS}", f"sampler.fraction_train={SHARE}"]
        if topology is not None:
            systems[name].command.append(f"topology={{fanout: {json.dumps(FANOUT)}}}")
    found = {name: [] for name in TREES}
    for _ in range(given.repeat):
        for name, system in systems.items():
            command = [sys.executable, __file__, "--alone", name, "--rounds", str(given.rounds)]
            found[name].append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
            system.time_once()
    rows, figures = [], []
    for what, pick, digits in (("processor time, ms a task", 0, 2), ("peak of memory, MB", 1, 0)):
        flat, tree = ([one[pick] for one in found[name]] for name in TREES)
        ratio = ratios(tree, flat)
        rows += [(f"controller alone, flat, {what}", spread(flat, digits), "")]
        rows += [(f"controller alone, tree, {what}", spread(tree, digits), f"{ratio} ×")]
        figures.append(Figure(f"Tree / flat: controller alone, {what}", ratio, "≤ 1.2" if pick else ""))
    flat, tree = (systems[name].runs.later_rounds_s for name in TREES)
    rows += [
        ("a round of W2, flat, s", spread(flat, 2), ""),
        ("a round of W2, tree, s", spread(tree, 2), f"{ratios(tree, flat)} ×"),
    ]
    figures.append(Figure("Tree / flat: a round of 1000 of 10,000 clients", ratios(tree, flat), "≤ 1.10"))
    print(f"Medians (min – max) of {given.repeat}")
    table(rows, ["", "measured", "compared"])
    save(given.figures, figures)


if __name__ == "__main__":
    main()
