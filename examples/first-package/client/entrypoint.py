"""A client that learns handwritten digits: the commands init_seed, train and validate."""

import json
import os

import fire
import numpy as np
import torch
from torch import nn


def make_model():
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def save(model, path):
    np.savez(path, **{name: tensor.numpy() for name, tensor in model.state_dict().items()})


def load(path):
    model = make_model()
    with np.load(path) as arrays:
        model.load_state_dict({name: torch.from_numpy(arrays[name]) for name in arrays.files})
    return model


def load_data(data_path, part):
    with np.load(data_path or os.environ["FEDN_DATA_PATH"]) as arrays:
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
    return torch.tensor(x, dtype=torch.float32) / 16, torch.tensor(y)


def init_seed(out_path):
    """Write the seed model."""
    save(make_model(), out_path)


def train(in_path, out_path, data_path=None, lr=0.1, epochs=5, batch_size=8):
    """Read a model, train it on this client's data, write it and the number of examples."""
    model = load(in_path)
    x, y = load_data(data_path, "train")
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(batch_size):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
    print(f"trained on {len(x)} images, last loss {loss.item():.3f}")
    save(model, out_path)
    with open(out_path + "-metadata", "w") as file:
        json.dump({"num_examples": len(x)}, file)


def validate(in_path, out_path, data_path=None):
    """Read a model, test it on this client's data, write its accuracy."""
    x, y = load_data(data_path, "test")
    with torch.no_grad():
        hits = load(in_path)(x).argmax(dim=1) == y
    with open(out_path, "w") as file:
        json.dump({"accuracy": hits.float().mean().item(), "num_examples": len(x)}, file)


if __name__ == "__main__":
    fire.Fire({"init_seed": init_seed, "train": train, "validate": validate})
