"""python -m pkgmod.main init_seed|train|validate: adds one to every tensor, and tells how it was started."""

import json
import sys
from pathlib import Path

import numpy as np

from . import model


def main(entry_point, *paths):
    if entry_point == "init_seed":
        model.write(paths[0], {"w": np.zeros((4, 3), np.float32)})
        return
    in_path, out_path = paths[:2]
    tensors = model.read(in_path)
    if entry_point == "validate":
        Path(out_path).write_text(json.dumps({"w_mean": float(tensors["w"].mean()), "num_examples": 5}))
        return
    model.write(out_path, {name: tensor + tensor.dtype.type(1) for name, tensor in tensors.items()})
    started = {
        "name": __name__,
        "package": __package__,
        "spec": __spec__.name,
        "file": __file__,
        "argv": sys.argv,
        "path": sys.path,
        "cwd": str(Path.cwd()),
    }
    Path(f"{out_path}-metadata").write_text(json.dumps({"num_examples": 5, **started}))


if __name__ == "__main__":
    main(*sys.argv[1:])
