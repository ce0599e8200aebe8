"""The algebra of Weights against a loop over tensors and against one flat vector: time of each operation.

python weights.py [--repeat 30]

On the parameters of an MLP (784-64-32-10), of a ResNet-18 (62 tensors) and on ten tensors of 10 MB, in one thread.
"Loop" is the code that one would write for a dictionary of tensors; "flat" is
tests/unit/weights/plain_algebra.py, which makes one vector of all parameters first. A ratio above 1 says how
much faster Weights is.
"""

import ctypes
import os
import statistics
import sys
import time
from pathlib import Path

from figures import ONE_THREAD, Figure, parser, save, table

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "weights"))

MLP = [(64, 784), (64,), (32, 64), (32,), (10, 32), (10,)]
BIG = [(2500, 1000)] * 10


def resnet18():
    shapes, before = [(64, 3, 7, 7), (64,), (64,)], 64
    for channels in (64, 64, 128, 128, 256, 256, 512, 512):
        shapes += [
            (channels, before, 3, 3),
            (channels,),
            (channels,),
            (channels, channels, 3, 3),
            (channels,),
            (channels,),
        ]
        if before != channels:
            shapes += [(channels, before, 1, 1), (channels,), (channels,)]
        before = channels
    return [*shapes, (1000, 512), (1000,)]


def operations():
    """Name → the same on Weights, in a loop over dictionaries, on flat vectors; all take (x, y)."""
    import plain_algebra as reference
    import torch

    from fedpkg.weights.weights import Weights

    def add_(x, y):
        for name, tensor in x.items():
            tensor.add_(y[name], alpha=1e-9)

    def lerp_(x, y):
        for name, tensor in x.items():
            tensor.lerp_(y[name], 1e-9)

    def axpby_(x, y):
        for name, tensor in x.items():
            tensor.mul_(1.0).add_(y[name], alpha=1e-9)

    def dot(x, y):
        return sum((x[name] * y[name]).sum() for name in x)

    def norm(x, _):
        return sum(tensor.square().sum() for tensor in x.values()).sqrt()

    return {
        "x + y": (lambda x, y: x + y, lambda x, y: {name: x[name] + y[name] for name in x}, reference.add),
        "x - y": (lambda x, y: x - y, lambda x, y: {name: x[name] - y[name] for name in x}, reference.subtract),
        "2 x": (
            lambda x, y: 2.0 * x,
            lambda x, y: {name: 2.0 * x[name] for name in x},
            lambda x, y: reference.scale(x, 2.0),
        ),
        "x / 2": (
            lambda x, y: x / 2.0,
            lambda x, y: {name: x[name] / 2.0 for name in x},
            lambda x, y: reference.divide(x, 2.0),
        ),
        "axpby": (
            lambda x, y: Weights.axpby(0.9, x, 0.1, y),
            lambda x, y: {name: 0.9 * x[name] + 0.1 * y[name] for name in x},
            lambda x, y: reference.axpby(0.9, x, 0.1, y),
        ),
        "add_": (lambda x, y: x.add_(y, alpha=1e-9), add_, lambda x, y: reference.add_(x, y, 1e-9)),
        "lerp_": (lambda x, y: x.lerp_(y, 1e-9), lerp_, lambda x, y: reference.lerp_(x, y, 1e-9)),
        "axpby_": (lambda x, y: x.axpby_(1e-9, y, 1.0), axpby_, lambda x, y: reference.axpby_(x, 1e-9, y, 1.0)),
        "dot": (Weights.dot, dot, reference.dot),
        "norm": (lambda x, y: x.norm(), norm, lambda x, y: reference.norm(x)),
        "dot and norm, with gradients": (
            with_gradients(lambda x, y: Weights.dot(0.1 * y, x) + (x - y).norm()),
            with_gradients(
                lambda x, y: (
                    sum((0.1 * y[name] * x[name]).sum() for name in x)
                    + torch.stack([(x[name] - y[name]).norm() for name in x]).norm()
                )
            ),
            with_gradients(
                lambda x, y: reference.dot(reference.scale(y, 0.1), x) + reference.norm(reference.subtract(x, y))
            ),
        ),
    }


def with_gradients(loss):
    """Forward and backward, to the tensors of x."""

    def call(x, y):
        for tensor in x.values():
            tensor.requires_grad_()
        loss(x, y).backward()
        for tensor in x.values():
            tensor.requires_grad_(False).grad = None

    return call


def keep_memory():
    """Have malloc keep what is freed: else whoever comes after a trim pays for the page faults of all."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        trim_threshold, mmap_threshold = -1, -3
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(mmap_threshold, 2**30)


def measure(calls, x, y, repeat):
    """Median seconds of each call; they take turns, so that all meet the same machine."""
    operands = [(x, y), (dict(x), dict(y)), (x, y)]
    seconds = [[] for _ in calls]
    for turn in range(repeat + 2):
        for call, given, times in zip(calls, operands, seconds, strict=True):
            started = time.perf_counter()
            call(*given)
            if turn > 1:  # the first ones bring code and memory
                times.append(time.perf_counter() - started)
    return [statistics.median(times) for times in seconds]


def main():
    options = parser(__doc__)
    options.add_argument(
        "--repeat", type=int, default=30, metavar="N", help="calls of each on the big list (default: 30)"
    )
    given = options.parse_args()
    os.environ.update(ONE_THREAD)
    import torch

    from fedpkg.weights.weights import Weights

    torch.set_num_threads(1)
    keep_memory()
    generator = torch.Generator().manual_seed(0)
    figures = []
    for label, shapes, repeat in (("MLP", MLP, 20), ("ResNet-18", resnet18(), 2), ("100 MB", BIG, 1)):
        x, y = (
            Weights({f"layer{i}.weight": torch.randn(shape, generator=generator) for i, shape in enumerate(shapes)})
            for _ in range(2)
        )
        rows, gains = [], []
        for name, calls in operations().items():
            ours, loop, flat = measure(calls, x, y, repeat * given.repeat)
            gains.append(loop / ours)
            rows.append(
                (
                    name,
                    f"{ours * 1e6:.0f}",
                    f"{loop * 1e6:.0f}",
                    f"{flat * 1e6:.0f}",
                    f"{loop / ours:.2f}",
                    f"{flat / ours:.2f}",
                )
            )
        print(f"{label}: {len(shapes)} tensors, {x.num_bytes / 1e6:.1f} MB")
        table(rows, ["", "Weights µs", "loop µs", "flat µs", "loop / Weights", "flat / Weights"])
        value = f"{statistics.geometric_mean(gains):.2f} ({min(gains):.2f} – {max(gains):.2f})"
        figures.append(Figure(f"Weights on {label}, times as fast as a loop", value))
    save(given.figures, figures)


if __name__ == "__main__":
    main()
