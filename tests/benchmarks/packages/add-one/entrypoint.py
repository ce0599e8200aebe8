"""A client that only adds 1 to every weight of a 100 MB model.

python entrypoint.py init_seed OUT_MODEL             write the model that the first round starts from
python entrypoint.py train     IN_MODEL OUT_MODEL    add 1 to it
"""

import json

import fire
import numpy as np


def init_seed(out_path, tensors=10, elements=2_500_000):
    ramp = np.arange(elements, dtype=np.float32) / np.float32(elements)
    np.savez(out_path, **{f"tensor_{i}": ramp + np.float32(i) for i in range(tensors)})


def train(in_path, out_path):
    with np.load(in_path, allow_pickle=False) as arrays:
        np.savez(out_path, **{name: arrays[name] + np.float32(1.0) for name in arrays.files})
    with open(f"{out_path}-metadata", "w") as file:
        json.dump({"num_examples": 600}, file)


if __name__ == "__main__":
    fire.Fire({"init_seed": init_seed, "train": train})
