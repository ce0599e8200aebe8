"""Load this client's data from the path in FEDN_DATA_PATH. As `startup`, check that the file can be read."""

import os

import torch


def load_data(data_path=None, is_train=True):
    """Images in [0, 1], of shape (n, 8, 8), and labels."""
    if data_path is None:
        data_path = os.environ.get("FEDN_DATA_PATH", os.path.abspath("../data/clients/1/digits.pt"))
    data = torch.load(data_path, weights_only=True)
    part = "train" if is_train else "test"
    return data[f"x_{part}"].float() / 16, data[f"y_{part}"]


if __name__ == "__main__":
    x, _ = load_data()
    print(f"{len(x)} training images")
