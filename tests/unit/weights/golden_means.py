"""Digests of means whose bits are part of what fedpkg promises; `golden_means.json` has them.

python golden_means.py > golden_means.json

All numbers are small integers times powers of two, and so are the weights: products are exact, with or without a fused
multiply-add, and only the order of the additions decides the bits, on every machine. The cohorts of up to 256 positions
were written by the version before sums of sums of blocks (rules 2).
"""

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from fedpkg.weights.fold import MeanFold
from fedpkg.weights.weights import Weights, raw_bytes

GOLDEN = Path(__file__).with_suffix(".json")
# Name → the cohort's size, and which of its positions answered.
COHORTS: Mapping[str, tuple[int, str]] = {
    "1": (1, "all"),
    "2": (2, "all"),
    "16": (16, "all"),
    "17": (17, "all"),
    "100, of which some fail": (100, "some"),
    "256": (256, "all"),
    "256, of which some fail": (256, "some"),
    "256, of which few answer": (256, "few"),
    "257": (257, "all"),
    "600, of which few answer": (600, "few"),
    "600, of which some fail": (600, "some"),
    "4500, of which some fail": (4500, "some"),
}
_MISSING = {"all": lambda _: False, "some": lambda position: position % 7 == 3, "few": lambda p: p % 41 != 5}


def numbers(*shape: int, seed: int) -> torch.Tensor:
    """Odd multiples of 2^-22 below 4 in magnitude: their sums do not fit into float32, so the order shows."""
    count = torch.Size(shape).numel()
    found = (torch.arange(1, count + 1, dtype=torch.int64) * 1_103_515_245 + seed * 12_345_677 + 12_345) % (1 << 24)
    return ((found - (1 << 23)) * 2 + 1).double().mul(2.0**-22).reshape(shape)


def update(position: int) -> Weights:
    wide = numbers(4, 9, seed=position)
    return Weights(
        {
            "w": wide.float(),
            "half": numbers(5, seed=position + 1).half(),
            "brain": numbers(3, seed=position + 2).bfloat16(),
            "double": numbers(7, seed=position + 3) / 3,
            "wave": torch.complex(numbers(2, seed=position).float(), numbers(2, seed=position + 4).float()),
            "count": torch.tensor(position),
        },
        buffers=["count"],
    )


def contributors(name: str) -> Iterator[tuple[int, Weights, float]]:
    """Position, update and weight of those who answered."""
    size, answered = COHORTS[name]
    for position in range(size):
        if not _MISSING[answered](position):
            yield position, update(position), 2.0 ** ((position * 5) % 11)


def digest(mean: Weights) -> str:
    found = hashlib.sha256()
    for name, tensor in mean.items():
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(raw_bytes(tensor).numpy().tobytes())
    return found.hexdigest()


def folded(name: str) -> Weights:
    fold = MeanFold(update(0))
    for position, weights, weight in contributors(name):
        fold.add(position, weights, weight)
    return fold.result()


if __name__ == "__main__":
    json.dump({name: digest(folded(name)) for name in COHORTS}, sys.stdout, indent=1)
    print()
