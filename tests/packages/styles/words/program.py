"""A program with positional settings: python program.py train MODEL MODEL 0.01 note. It also reads a config file."""

import json
import sys
from pathlib import Path

import numpy as np


def main(task: str, *paths_and_settings: str) -> None:
    if task == "build":
        np.savez(paths_and_settings[-1], w=np.zeros(3, np.float32))
        return
    in_path, out_path, *settings = paths_and_settings
    with np.load(in_path, allow_pickle=False) as arrays:
        w = arrays["w"]
    if task == "validate":
        Path(out_path).write_text(json.dumps({"w": float(w[0]), "num_examples": 1}))
        return
    theta, note = settings if settings else ("1.0", "plain")
    np.savez(out_path, w=w + np.float32(theta))
    Path(f"{out_path}-metadata").write_text(json.dumps({"num_examples": 1, "note": note}))


if __name__ == "__main__":
    main(*sys.argv[1:])
