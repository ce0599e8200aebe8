"""RecordDict ⇄ file of 100 MB, in one thread, against np.savez and np.memmap; and its conversions from and to PyTorch.

python record_files.py [--repeat 15]

The ways alternate, so that all see the same load. Files are written to --folder (default: the folder for temporary
files) and stay in the page cache. A ratio is that of the medians.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

from figures import ONE_THREAD, Figure, parser, save, spread, table

SHAPES = [(2500, 1000)] * 10


def ways(folder):
    """Name → what is timed."""
    import numpy as np
    import torch

    from fedpkg.apps import ArrayRecord, ConfigRecord, RecordDict
    from fedpkg.records.files import read_content, write_content

    state = {f"layer{number}.weight": torch.randn(shape) for number, shape in enumerate(SHAPES)}
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    content = RecordDict({"arrays": ArrayRecord(state), "config": ConfigRecord({"lr": 0.1})})
    raw = folder / "raw"
    raw.write_bytes(b"".join(array.tobytes() for array in arrays.values()))

    def mapped():
        sizes = np.cumsum([0, *[array.nbytes for array in arrays.values()]])
        return [
            np.memmap(raw, np.float32, "c", int(start), array.shape)
            for start, array in zip(sizes, arrays.values(), strict=False)
        ]

    def read():
        return read_content(folder / "content.npz")[0]["arrays"]

    def trained(tensors):
        for tensor in tensors:
            tensor += 1.0

    return {
        "np.savez": lambda: np.savez(folder / "numpy.npz", **arrays),
        "write .npz": lambda: write_content(folder / "content.npz", content),
        "write .safetensors": lambda: write_content(folder / "content.safetensors", content),
        "state_dict, write .npz": lambda: write_content(
            folder / "other.npz", RecordDict({"arrays": ArrayRecord(state)})
        ),
        "np.memmap": mapped,
        "read": read,
        "read, to_torch_state_dict": lambda: read().to_torch_state_dict(),
        "np.memmap, add 1": lambda: trained(mapped()),
        "read, to_torch_state_dict, add 1": lambda: trained(read().to_torch_state_dict().values()),
        "np.load, copied": lambda: [np.load(folder / "content.npz")["arrays/" + name] for name in arrays],
    }


def main():
    made = parser(__doc__)
    made.add_argument("--repeat", type=int, default=15)
    made.add_argument("--folder", type=Path, default=None, help="where files are written")
    options = made.parse_args()
    os.environ.update(ONE_THREAD)
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        timed = ways(Path(folder))
        seconds = {name: [] for name in timed}
        for number in range(options.repeat + 1):
            for name, way in timed.items():
                start = time.perf_counter()
                way()
                if number:  # the first one warms the page cache
                    seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(found) for name, found in seconds.items()}
    table([[name, spread(found, 2, 1000)] for name, found in seconds.items()], ["100 MB", "ms"])
    written = median["write .npz"] / median["np.savez"]
    used = median["read, to_torch_state_dict, add 1"] / median["np.memmap, add 1"]
    print(f"write .npz / np.savez: {written:.2f}")
    print(f"read and add 1 / np.memmap and add 1: {used:.2f}")
    save(
        options.figures,
        [
            Figure("RecordDict → 100 MB file / np.savez", f"{written:.2f}", "≤ 1.3"),
            Figure("100 MB file → RecordDict, used / np.memmap, used", f"{used:.2f}", "≤ 1.3"),
        ],
    )


if __name__ == "__main__":
    main()
