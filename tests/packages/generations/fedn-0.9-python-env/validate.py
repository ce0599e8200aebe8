"""The loss of a model."""

import sys

from data import load_data
from fedn.utils.helpers.helpers import save_metrics
from model import load_parameters


def validate(in_model_path, out_json_path, data_path=None):
    x, y = load_data(data_path)
    w, b = load_parameters(in_model_path)
    save_metrics({"test_loss": float(((x @ w + b - y) ** 2).mean())}, out_json_path)


if __name__ == "__main__":
    validate(sys.argv[1], sys.argv[2])
