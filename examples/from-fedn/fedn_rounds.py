"""Compute rounds as FEDn does, without its servers, to compare with `fedpkg run`: one call per client, then the mean.

The mean is that of FEDn's numpyhelper, which adds one update after the other:
increment_average(model, update, n_k, n) = model + n_k (update - model) / n, where n counts the examples so far.

    python fedn_rounds.py SEED.npz ROUNDS OUT.npz
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np


def load(path):
    with np.load(path) as arrays:
        return [arrays[str(i)] for i in range(len(arrays.files))]


model, rounds, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
for _ in range(rounds):
    average, total = None, 0
    for data in sorted(Path("data/clients").glob("*/digits.pt")):
        words = ["fedpkg", "package", "call", "train", "--path", "client", "--data", str(data)]
        subprocess.run([*words, "--input", model, "--output", "update.npz"], check=True, stdout=subprocess.DEVNULL)
        n_k = json.loads(Path("update.npz-metadata").read_text())["num_examples"]
        total += n_k
        update = load("update.npz")
        average = (
            update if average is None else [m + n_k * (u - m) / total for m, u in zip(average, update, strict=True)]
        )
    np.savez(out, **{str(i): array.astype(np.float32) for i, array in enumerate(average)})
    model = out
