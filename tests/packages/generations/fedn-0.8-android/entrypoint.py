"""FEDn 0.8: a vector of packed float32 values, as clients on Android send it."""

import fire
import numpy as np
from fedn.utils.helpers.helpers import get_helper, save_metadata

helper = get_helper("androidhelper")


def init_seed(out_path="../seed.bin"):
    helper.save(np.linspace(-1, 1, 9), out_path)


def train(in_model_path, out_model_path):
    weights = helper.load(in_model_path)
    save_metadata({"num_examples": 10}, out_model_path)
    helper.save(weights * 0.5 + np.random.default_rng(1).standard_normal(len(weights)), out_model_path)


if __name__ == "__main__":
    fire.Fire({"init_seed": init_seed, "train": train})
