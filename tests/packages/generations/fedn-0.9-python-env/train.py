"""FEDn 0.9: a script for each entry point again, modules data and model, a python_env, build and startup."""

import sys

from data import load_data
from fedn.utils.helpers.helpers import save_metadata
from model import load_parameters, save_parameters


def train(in_model_path, out_model_path, data_path=None, batch_size=4, epochs=2, lr=0.05):
    x, y = load_data(data_path)
    w, b = load_parameters(in_model_path)
    for _ in range(epochs):
        for start in range(0, len(y), batch_size):
            batch = slice(start, start + batch_size)
            error = x[batch] @ w + b - y[batch]
            w, b = w - lr * x[batch].T @ error, b - lr * error.sum()
    metadata = {"num_examples": len(y), "batch_size": batch_size, "epochs": epochs, "lr": lr}
    save_metadata(metadata, out_model_path)
    save_parameters([w, b], out_model_path)


if __name__ == "__main__":
    train(sys.argv[1], sys.argv[2])
