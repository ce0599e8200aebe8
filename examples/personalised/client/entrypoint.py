"""A client that learns handwritten digits with a personal part: the commands init_seed, train and validate."""

import os
from collections import OrderedDict

import fire
import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from fedpkg import client


def make_model():
    return nn.Sequential(OrderedDict(body=nn.Linear(64, 32), relu=nn.ReLU(), head=nn.Linear(32, 10)))


def load_data(part):
    with np.load(os.environ["FEDN_DATA_PATH"]) as arrays:
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
    return torch.tensor(x, dtype=torch.float32).reshape(-1, 64) / 16, torch.tensor(y)


def descend(model, x, y, epochs, lr, correct=lambda: None):
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(8):
            optimizer.zero_grad()
            cross_entropy(model(x[batch]), y[batch]).backward()
            correct()
            optimizer.step()


@torch.no_grad()
def accuracy(model, x, y):
    return (model(x).argmax(dim=1) == y).float().mean().item()


def init_seed(out_path):
    client.save(out_path, make_model())


def train(in_path, out_path, lr=0.1, epochs=3):
    model, (x, y) = make_model(), load_data("train")
    given = client.load(in_path, model)
    descend(model, x, y, epochs, lr, client.fedprox(model, given).correct_gradients)
    ditto = client.Ditto(model, given)
    if ditto.active:
        descend(ditto.model, x, y, epochs, lr, ditto.correct_gradients)
        ditto.finish()
    client.save(out_path, model, given, num_examples=len(x))


def validate(in_path, out_path, lr=0.05, epochs=1):
    model, (x, y) = make_model(), load_data("test")
    client.load(in_path, model)
    tuned = client.fine_tuned(model, lambda own: descend(own, *load_data("train"), epochs, lr))
    metrics = {
        "accuracy": accuracy(model, x, y),
        "tuned_accuracy": accuracy(tuned, x, y),
        "own_accuracy": accuracy(client.personal_model(model), x, y),
    }
    client.save_metrics(out_path, {**metrics, "num_examples": len(x)})


if __name__ == "__main__":
    fire.Fire({"init_seed": init_seed, "train": train, "validate": validate})
