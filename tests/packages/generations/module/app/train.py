"""Run as ``python3 -m app.train``, with quoted arguments; no helper of FEDn at all."""

import json
import sys

import numpy as np

from app.model import SEED

if __name__ == "__main__":
    what, quoted, note, *paths = sys.argv[1:]
    assert (quoted, note) == ("a quoted word", "--note=it's two words")
    if what == "build":
        np.savez(paths[0], **SEED)
    else:
        with np.load(paths[0]) as model:
            np.savez(paths[1], w=model["w"] + 0.25, steps=model["steps"] + 1)
        with open(f"{paths[1]}-metadata", "w") as file:
            json.dump({"num_examples": 4}, file)
