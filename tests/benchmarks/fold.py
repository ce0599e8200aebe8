"""GB/s of folding model updates: mapped, checked and averaged by fedpkg, against np.load and a running average.

python fold.py [--repeat 5] [--clients 8]

Eight updates of 100 MB, in the page cache, one thread. "Checked" is the look for NaN and infinities in every update.
Arrays that np.savez wrote lie at any byte; half of them are not aligned here, and are copied.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

from figures import ONE_THREAD, Figure, parser, save, spread, table

TENSORS, ELEMENTS, EXAMPLES = 10, 2_500_000, 600


def write_updates(folder, clients):
    import numpy as np

    rng = np.random.default_rng(0)
    arrays = {f"tensor_{i}": rng.standard_normal(ELEMENTS, dtype=np.float32) for i in range(TENSORS)}
    paths = [folder / f"update-{number}.npz" for number in range(clients)]
    for path in paths:
        np.savez(path, **arrays)
    return paths


def write_aligned(paths):
    """The same updates as fedpkg writes them."""
    from fedpkg.formats.base import ModelForm
    from fedpkg.formats.model_file import read_model, write_model

    aligned = [path.with_suffix(".safetensors") for path in paths]
    for path, copy in zip(paths, aligned, strict=True):
        write_model(copy, read_model(path), ModelForm(".safetensors", "names"))
    return aligned


def fold_mapped(paths, *, check):
    from fedpkg.formats.model_file import read_model
    from fedpkg.weights.fold import MeanFold

    fold = None
    for position, path in enumerate(paths):
        update = read_model(path)
        if check and update.first_non_finite():
            raise SystemExit(f"{path}: not finite")
        fold = fold or MeanFold(update)
        fold.add(position, update, EXAMPLES)
    return fold.result()


def average_loaded(paths, *, check):
    """The loop that one would write: w += (w_k - w) n_k / n."""
    import numpy as np

    mean, total = {}, 0
    for path in paths:
        with np.load(path) as arrays:
            update = {name: arrays[name] for name in arrays.files}
        if check and not all(np.isfinite(array).all() for array in update.values()):
            raise SystemExit(f"{path}: not finite")
        total += EXAMPLES
        if not mean:
            mean = update
        else:
            for name, array in update.items():
                mean[name] += (array - mean[name]) * np.float32(EXAMPLES / total)
    return mean


def main():
    options = parser(__doc__)
    options.add_argument("--repeat", type=int, default=5, metavar="N", help="passes of each (default: 5)")
    options.add_argument("--clients", type=int, default=8, metavar="N", help="updates of 100 MB (default: 8)")
    given = options.parse_args()
    os.environ.update(ONE_THREAD)
    import torch

    torch.set_num_threads(1)
    kinds = {
        "fedpkg: mapped, checked, folded": (fold_mapped, True, True),
        "fedpkg: mapped, folded": (fold_mapped, False, True),
        "fedpkg, np.savez: mapped, checked, folded": (fold_mapped, True, False),
        "np.load, checked, averaged": (average_loaded, True, False),
        "np.load, averaged": (average_loaded, False, False),
    }
    seconds = {name: [] for name in kinds}
    with tempfile.TemporaryDirectory(prefix="fedpkg-bench-") as folder:
        paths = write_updates(Path(folder), given.clients)
        aligned_paths = write_aligned(paths)
        num_bytes = sum(path.stat().st_size for path in paths)
        for turn in range(given.repeat + 1):
            for name, (average, check, aligned) in kinds.items():
                started = time.perf_counter()
                average(aligned_paths if aligned else paths, check=check)
                if turn:  # the first pass brings files and code into memory
                    seconds[name].append(time.perf_counter() - started)
    speed = {name: [num_bytes / each / 1e9 for each in series] for name, series in seconds.items()}
    size_mb = num_bytes / given.clients / 1e6
    print(f"Folding {given.clients} updates of {size_mb:.0f} MB: medians (min – max) of {given.repeat}")
    table([(name, spread(speed[name], 2), spread(seconds[name], 0, 1000)) for name in kinds], ["", "GB/s", "ms"])
    ours, _, from_numpy, theirs, _ = (statistics.median(series) for series in speed.values())
    save(
        given.figures,
        [
            Figure(
                "Map, check and fold updates, GB/s", f"{ours:.1f} ({ours / theirs:.1f} × np.load)", "≥ 5 (goal 8), 4 ×"
            ),
            Figure("The same of np.savez, GB/s", f"{from_numpy:.1f} ({from_numpy / theirs:.1f} × np.load)"),
        ],
    )


if __name__ == "__main__":
    main()
