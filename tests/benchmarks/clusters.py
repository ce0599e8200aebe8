"""Clusters of 1000 updates of a million parameters, mapped: seconds, and memory that is no mapped file.

python clusters.py [--clients 1000] [--elements 1000000] [--repeat 1] [--close 100]

Then distances of updates that are close to each other, in blocks and pair by pair.

The updates are safetensors files of float32 in the page cache; all threads of the machine, a process for each turn.
Four groups are found by agglomerative clustering of cosine distances; other methods differ in what follows
the distances, which takes less than a second.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from figures import Figure, parser, save, spread, table

GROUPS = 4


def write_updates(folder, clients, elements):
    import torch

    from fedpkg.formats.base import ModelForm
    from fedpkg.formats.model_file import write_model
    from fedpkg.weights.weights import Weights

    generator = torch.Generator().manual_seed(0)
    centres = [0.2 * torch.randn(elements, generator=generator) for _ in range(GROUPS)]
    for number in range(clients):
        row = torch.randn(elements, generator=generator).add_(centres[number % GROUPS])
        write_model(folder / f"{number:05d}.safetensors", Weights({"x": row}), ModelForm(".safetensors", "names"))


def own_memory():
    return 1024 * int(Path("/proc/self/status").read_text().partition("RssAnon:")[2].split()[0])


def measure(folder):
    """In a process of its own: wall and CPU seconds, and the most memory that was no mapped file."""
    import torch

    from fedpkg.clusters.finding import find_clusters
    from fedpkg.clusters.method import Finding
    from fedpkg.formats.model_file import read_model
    from fedpkg.strategies.base import Reply
    from fedpkg.strategies.updates.held import Updates
    from fedpkg.weights.weights import Weights

    weights = [read_model(path) for path in sorted(Path(folder).glob("*.safetensors"))]
    model = Weights({name: torch.zeros_like(tensor) for name, tensor in weights[0].items()})
    peak, done = [own_memory()], threading.Event()
    before = peak[0]

    def watch():
        while not done.wait(0.02):
            peak[0] = max(peak[0], own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started, cpu = time.perf_counter(), time.process_time()
    updates = Updates((Reply("r", n, f"c{n}", {"": one}, 1.0) for n, one in enumerate(weights)), model)
    clusters = find_clusters(updates, Finding(cut={"clusters": GROUPS})).leaves()
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    done.set()
    watcher.join()
    expected = [tuple(f"c{n}" for n in range(first, len(weights), GROUPS)) for first in range(GROUPS)]
    if list(clusters.values()) != expected:
        raise SystemExit("the groups were not found")
    print(json.dumps([seconds, cpu, peak[0] - before]))


def compare_ways(count, elements):
    """Seconds of processor time for distances of ``count`` nearly equal updates: in blocks, and pair by pair."""
    import torch

    from fedpkg.strategies.base import Reply
    from fedpkg.strategies.updates.distances import squared_distances, squared_distances_by_pair
    from fedpkg.strategies.updates.held import Updates
    from fedpkg.weights.weights import Weights

    generator = torch.Generator().manual_seed(0)
    base = torch.randn(elements, generator=generator)
    made = [Weights({"x": base + 1e-4 * torch.randn(elements, generator=generator)}) for _ in range(count)]
    updates = Updates((Reply("r", n, f"c{n}", {"": one}, 1.0) for n, one in enumerate(made)), Weights({"x": 0 * base}))
    seconds, found = [], []
    for way in (squared_distances, squared_distances_by_pair):
        cpu = time.process_time()
        found.append(way(updates))
        seconds.append(time.process_time() - cpu)
    torch.testing.assert_close(*found, rtol=1e-9, atol=0)
    return seconds


def main():
    options = parser(__doc__)
    options.add_argument("--clients", type=int, default=1000, metavar="N")
    options.add_argument("--elements", type=int, default=1_000_000, metavar="N", help="parameters of each update")
    options.add_argument("--repeat", type=int, default=1, metavar="N", help="turns (default: 1)")
    options.add_argument(
        "--close", type=int, default=100, metavar="N", help="updates close to each other (default: 100)"
    )
    options.add_argument("--measure", metavar="FOLDER", help="(what each process of this script does)")
    given = options.parse_args()
    if given.measure:
        measure(given.measure)
        return
    with tempfile.TemporaryDirectory(prefix="fedpkg-bench-") as folder:
        write_updates(Path(folder), given.clients, given.elements)
        command = [sys.executable, __file__, "--measure", folder]
        runs = [
            json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            for _ in range(given.repeat)
        ]
    wall, cpu, memory = zip(*runs, strict=True)
    what = f"Clusters of {given.clients} updates × {given.elements / 1e6:g} M parameters"
    figures = [
        Figure(f"{what}, s", f"{statistics.median(wall):.1f}", "< 15"),
        Figure(f"{what}, GB", f"{max(memory) / 1e9:.2f}", "< 1"),
    ]
    blocks, pairs = compare_ways(given.close, given.elements)
    figures.append(Figure(f"Distances of {given.close} close updates: pairs / blocks", f"{pairs / blocks:.1f} ×", ""))
    print(f"{what}: wall {spread(wall)} s, CPU {spread(cpu)} s")
    table([(figure.name, figure.value, figure.goal) for figure in figures], ["figure", "measured", "goal"])
    save(given.figures, figures)


if __name__ == "__main__":
    main()
