"""Run with: python -m pytest"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

CLIENT = Path(__file__).resolve().parents[1] / "client"


def call(data, *words):
    environ = {**os.environ, "FEDN_DATA_PATH": str(data)}
    subprocess.run([sys.executable, "entrypoint.py", *map(str, words)], cwd=CLIENT, env=environ, check=True)


def test_training_lowers_the_loss(tmp_path):
    x, y = np.eye(10, 64, dtype=np.float32) * 16, np.arange(10)  # ten images with one pixel each
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    call(tmp_path / "data.npz", "build", tmp_path / "seed.npz")
    losses = []
    for model, epochs in (("seed.npz", 1), ("out.npz", 50)):
        call(tmp_path / "data.npz", "train", tmp_path / model, tmp_path / "out.npz", f"--epochs={epochs}")
        call(tmp_path / "data.npz", "validate", tmp_path / "out.npz", tmp_path / "out.json")
        losses.append(json.loads((tmp_path / "out.json").read_text())["test_loss"])
    assert losses[1] < losses[0]
    assert json.loads((tmp_path / "out.npz-metadata").read_text())["num_examples"] == 10
