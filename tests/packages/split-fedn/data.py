"""One client's columns."""

import os

import numpy as np


def load_data(is_train=True):
    with np.load(os.environ["FEDN_DATA_PATH"]) as data:
        return data["X_train" if is_train else "X_test"]


if __name__ == "__main__":
    os.makedirs("local_models")
