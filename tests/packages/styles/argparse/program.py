"""A program with sub-commands: python program.py train --input MODEL --output MODEL --theta 0.01."""

import argparse
import json
from pathlib import Path

import numpy as np


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="task", required=True)
    for name in ("build", "train", "validate"):
        command = commands.add_parser(name)
        command.add_argument("--output", required=True)
        if name != "build":
            command.add_argument("--input", required=True)
        if name == "train":
            command.add_argument("--theta", type=float, default=1.0)
            command.add_argument("--note", default="plain")
    return parser.parse_args()


def main() -> None:
    settings = options()
    if settings.task == "build":
        np.savez(settings.output, w=np.zeros(3, np.float32))
        return
    with np.load(settings.input, allow_pickle=False) as arrays:
        w = arrays["w"]
    if settings.task == "validate":
        Path(settings.output).write_text(json.dumps({"w": float(w[0]), "num_examples": 1}))
        return
    np.savez(settings.output, w=w + np.float32(settings.theta))
    Path(f"{settings.output}-metadata").write_text(json.dumps({"num_examples": 1, "note": settings.note}))


if __name__ == "__main__":
    main()
