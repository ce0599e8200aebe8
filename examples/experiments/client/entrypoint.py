"""A client that learns handwritten digits by FedAvg, FedProx or SCAFFOLD: init_seed, train and validate."""

import os

import fire
import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from fedpkg import client


def make_model():
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def load_data(part):
    with np.load(os.environ["FEDN_DATA_PATH"]) as arrays:
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
    return torch.tensor(x, dtype=torch.float32).reshape(-1, 64) / 16, torch.tensor(y)


def init_seed(out_path):
    client.save(out_path, make_model())


def train(in_path, out_path, lr=0.1, epochs=2, batch_size=16):
    model, (x, y) = make_model(), load_data("train")
    given = client.load(in_path, model)
    prox, scaffold = client.fedprox(model, given), client.Scaffold(model, given)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(batch_size):
            optimizer.zero_grad()
            cross_entropy(model(x[batch]), y[batch]).backward()
            prox.correct_gradients()
            scaffold.correct_gradients()
            optimizer.step()
    client.save(out_path, model, given, num_examples=len(x), sets=scaffold.finish(learning_rate=lr))


@torch.no_grad()
def validate(in_path, out_path):
    model, (x, y) = make_model(), load_data("test")
    client.load(in_path, model)
    accuracy = (model(x).argmax(dim=1) == y).float().mean().item() if len(x) else 0.0
    client.save_metrics(out_path, {"accuracy": accuracy, "num_examples": len(x)})


if __name__ == "__main__":
    fire.Fire({"init_seed": init_seed, "train": train, "validate": validate})
