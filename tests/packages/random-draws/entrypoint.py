"""A client that draws from every global random generator and seeds none of them.

Its replies are the same bytes in every executor only if somebody else seeds random, NumPy and torch and fixes the order
of sets.
"""

import json
import random

import fire
import numpy as np
import torch
from torch import nn
from torch.nn.functional import nll_loss

NUM_EXAMPLES = 200


def make_model():
    return nn.Sequential(
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(64, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
        nn.LogSoftmax(dim=1),
    )


def make_data():
    """Images and labels in place of data; the same on each call."""
    x = torch.sin(torch.arange(NUM_EXAMPLES * 64, dtype=torch.float32)).reshape(NUM_EXAMPLES, 64)
    return x, torch.arange(NUM_EXAMPLES) % 10


def save_model(model, path):
    np.savez(path, **{name: tensor.numpy() for name, tensor in model.state_dict().items()})


def load_model(path):
    model = make_model()
    with np.load(path, allow_pickle=False) as arrays:
        model.load_state_dict({name: torch.from_numpy(arrays[name]) for name in arrays.files})
    return model


def init_seed(out_path):
    save_model(make_model(), out_path)


def train(in_path, out_path, lr=0.1):
    model = load_model(in_path).train()
    x, y = make_data()
    order = list(range(NUM_EXAMPLES))
    random.shuffle(order)
    x += torch.from_numpy(np.random.normal(scale=0.1, size=x.shape)).float()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for batch in torch.tensor(order).split(32):
        batch = batch[torch.randperm(len(batch))]
        optimizer.zero_grad()
        nll_loss(model(x[batch]), y[batch]).backward()  # dropout draws from torch's generator
        optimizer.step()
    save_model(model, out_path)
    draws = {
        "random": random.random(),
        "numpy": float(np.random.rand()),
        "torch": torch.rand(()).item(),
        "hash": hash("x"),
        "set": list({"a", "b", "c", "d", "e", "f"}),
        "threads": torch.get_num_threads(),
    }
    with open(f"{out_path}-metadata", "w") as file:
        json.dump({"num_examples": NUM_EXAMPLES, **draws}, file)


@torch.no_grad()
def validate(in_path, out_path):
    model = load_model(in_path).eval()
    x, y = make_data()
    with open(out_path, "w") as file:
        json.dump({"loss": nll_loss(model(x), y).item(), "num_examples": NUM_EXAMPLES}, file)


if __name__ == "__main__":
    fire.Fire({"init_seed": init_seed, "train": train, "validate": validate})
