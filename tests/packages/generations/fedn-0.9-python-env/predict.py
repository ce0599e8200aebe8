"""A model's predictions."""

import sys

from data import load_data
from fedn.utils.helpers.helpers import save_metrics
from model import load_parameters

if __name__ == "__main__":
    x, _ = load_data()
    w, b = load_parameters(sys.argv[1])
    save_metrics({"predictions": (x @ w + b).tolist()}, sys.argv[2])
