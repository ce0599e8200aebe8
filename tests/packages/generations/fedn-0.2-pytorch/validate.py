"""Writes the loss of a model as JSON."""

import json
import sys

import torch
from data import read_data
from fedn.utils.pytorchhelper import PytorchHelper
from model import create_seed_model, set_weights

if __name__ == "__main__":
    model, loss, _ = create_seed_model()
    set_weights(model, PytorchHelper().load_model(sys.argv[1]))
    x, y = read_data()
    with torch.no_grad(), open(sys.argv[2], "w") as file:
        json.dump({"loss": loss(model(x), y).item()}, file)
