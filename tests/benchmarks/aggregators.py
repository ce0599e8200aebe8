"""Robust aggregation of mapped updates: seconds and memory of its own, against the obvious way to write it.

python aggregators.py [--clients 32] [--elements 25000000] [--repeat 3]

32 updates of 25 million float32 parameters in ten tensors, in safetensors files, in the page cache; all threads of the
machine. Each measurement is a process of its own. "Reading" touches every byte once (sums of the bytes as 64-bit
integers). The obvious ways are torch.stack(…).median(dim=0), tensor by tensor, and a loop over pairs of flat vectors.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import Figure, parser, save, table

TENSORS = 10


def write_updates(folder, clients, elements):
    import torch

    from fedpkg.formats.base import ModelForm
    from fedpkg.formats.model_file import write_model
    from fedpkg.weights.weights import Weights

    generator = torch.Generator().manual_seed(0)
    for number in range(clients):
        update = {f"w{i}": torch.randn(elements // TENSORS, generator=generator) for i in range(TENSORS)}
        write_model(folder / f"{number}.safetensors", Weights(update), ModelForm(".safetensors", "names"))


def own_memory():
    return 1024 * int(Path("/proc/self/status").read_text().partition("RssAnon:")[2].split()[0])


def measure(what, folder):
    """In a process of its own: seconds, and the most memory that was no mapped file."""
    import threading

    import torch

    from fedpkg.formats.model_file import read_model
    from fedpkg.strategies.base import Reply
    from fedpkg.strategies.folds import folded
    from fedpkg.strategies.registry import make_strategy
    from fedpkg.weights.weights import Weights

    paths = sorted(Path(folder).glob("*.safetensors"))
    updates = [Weights(read_model(path)) for path in paths]
    for update in updates:  # the page tables of the mapping are filled, as by the check of a reply
        update.first_non_finite()
    model = Weights({name: torch.zeros_like(tensor) for name, tensor in updates[0].items()})
    torch.ones(1 << 20).sum()
    peak, done = [own_memory()], threading.Event()
    before = peak[0]

    def watch():
        while not done.wait(0.02):
            peak[0] = max(peak[0], own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    if what == "reading":
        sum(int(tensor.view(torch.int64).sum()) for update in updates for tensor in update.values())
    elif what == "stack.median":
        {name: torch.stack([update[name] for update in updates]).median(dim=0).values for name in model}
    elif what == "pairwise loop":
        vectors = [update.to_flat() for update in updates]
        for i in range(len(vectors)):
            for j in range(i):
                (vectors[i] - vectors[j]).square().sum()
    else:
        aggregator = make_strategy({"aggregator": what}).aggregator
        replies = (Reply("r", n, f"c{n}", {"": update}, 1.0 + n) for n, update in enumerate(updates))
        if hasattr(aggregator, "aggregate_next"):
            import numpy as np

            aggregator.aggregate_next(replies, model, {}, np.random.default_rng(0))
        elif hasattr(aggregator, "aggregate"):
            aggregator.aggregate(replies, model)
        else:
            folded(aggregator.fold(model), replies)
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    print(json.dumps([seconds, max(peak[0], own_memory()) - before]))


def measured(what, folder):
    command = [sys.executable, __file__, "--measure", what, "--folder", str(folder)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


OURS = (
    "weighted_mean", "median", "trimmed_mean", "krum", "multi_krum", "bulyan", "geometric_median", "centered_clipping",
    "norm_bounding", "bucketing",
)  # fmt: skip
THEIRS = ("reading", "stack.median", "pairwise loop")


def main():
    options = parser(__doc__)
    options.add_argument("--clients", type=int, default=32, metavar="N")
    options.add_argument("--elements", type=int, default=25_000_000, metavar="N", help="parameters of each update")
    options.add_argument("--repeat", type=int, default=3, metavar="N", help="turns (default: 3)")
    options.add_argument("--only", nargs="+", metavar="NAME", help="some of the measurements")
    options.add_argument("--measure", metavar="NAME", help="(what each process of this script does)")
    options.add_argument("--folder", metavar="FOLDER", help="(where the updates are)")
    given = options.parse_args()
    if given.measure:
        measure(given.measure, given.folder)
        return
    names = given.only or [*THEIRS, *OURS]
    seconds = {name: [] for name in names}
    memory = dict.fromkeys(names, 0)
    with tempfile.TemporaryDirectory(prefix="fedpkg-bench-") as folder:
        write_updates(Path(folder), given.clients, given.elements)
        for _ in range(given.repeat):
            for name in names:
                took, peak = measured(name, folder)
                seconds[name].append(took)
                memory[name] = max(memory[name], peak)
    best = {name: statistics.median(series) for name, series in seconds.items()}
    print(f"{given.clients} updates × {given.elements / 1e6:g} M parameters: medians (min – max) of {given.repeat}")
    table(
        [
            (
                name,
                f"{best[name]:.2f} ({min(seconds[name]):.2f} – {max(seconds[name]):.2f})",
                f"{memory[name] / 1e6:.0f}",
            )
            for name in names
        ],
        ["", "s", "MB"],
    )
    listing = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "fedpkg", "strategy", "list"], check=True, capture_output=True)
        listing.append(time.perf_counter() - started)
    figures = [Figure("fedpkg strategy list, s", f"{statistics.median(listing):.2f}", "< 0.3")]
    if {"reading", "weighted_mean"} <= set(names):
        ratio = best["weighted_mean"] / best["reading"]
        figures.append(Figure("Mean / reading the bytes once", f"{ratio:.2f}", "≤ 1.3"))
    for name in ("median", "trimmed_mean"):
        if {"stack.median", name} <= set(names):
            ratio, share = best["stack.median"] / best[name], memory[name] / memory["stack.median"]
            value = f"{ratio:.1f} ×, {share:.2f} of its memory"
            figures.append(Figure(f"{name} against torch.stack(…).median", value, "≥ 3 ×, ≤ 0.2"))
    if {"pairwise loop", "multi_krum"} <= set(names):
        ratio = best["pairwise loop"] / best["multi_krum"]
        figures.append(Figure("multi-Krum against a loop over pairs", f"{ratio:.1f} ×", "≥ 3 ×"))
    table([(figure.name, figure.value, figure.goal) for figure in figures], ["figure", "measured", "goal"])
    save(given.figures, figures)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    main()
