"""Tells which words it was called with. The paths to read and write are the last that start with a slash."""

import json
import sys
from pathlib import Path

import numpy as np


def main(entry_point, *words):
    paths = [word for word in words if word.startswith("/")]
    if entry_point == "init_seed":
        np.savez(paths[-1], w=np.zeros(3, np.float32))
        return
    in_path, out_path = paths[-2:]
    report = {"num_examples": 1, "argv": sys.argv}
    if entry_point == "validate":
        Path(out_path).write_text(json.dumps(report))
        return
    with np.load(in_path, allow_pickle=False) as arrays:
        np.savez(out_path, w=arrays["w"] + np.float32(1))
    Path(f"{out_path}-metadata").write_text(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
