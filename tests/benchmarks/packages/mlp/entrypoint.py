"""A client with 600 synthetic examples, made anew for every call, and the tutorial's MLP.

python entrypoint.py init_seed OUT_MODEL             write the model that the first round starts from
python entrypoint.py train     IN_MODEL OUT_MODEL    train it on this client's examples
"""

import json
import os

import fire
import numpy as np
import torch
from torch import nn
from torch.nn.functional import dropout, log_softmax, nll_loss, relu

NUM_EXAMPLES = 600
BATCH_SIZE = 32
LEARNING_RATE = 0.01


class Net(nn.Module):
    """784 inputs - 64 - 32 - 10 classes."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(784, 64)
        self.fc2 = nn.Linear(64, 32)
        self.fc3 = nn.Linear(32, 10)

    def forward(self, x):
        x = relu(self.fc1(x))
        x = dropout(x, p=0.5, training=self.training)
        x = relu(self.fc2(x))
        return log_softmax(self.fc3(x), dim=1)


def make_examples(partition_id):
    """The examples of one client: the same in every call."""
    generator = torch.Generator().manual_seed(partition_id)
    x = torch.randn(NUM_EXAMPLES, 784, generator=generator)
    return x, torch.randint(0, 10, (NUM_EXAMPLES,), generator=generator)


def load_model(path):
    model = Net()
    with np.load(path, allow_pickle=False) as arrays:
        model.load_state_dict({name: torch.from_numpy(arrays[name]) for name in arrays.files})
    return model


def save_model(model, path):
    np.savez(path, **{name: tensor.numpy() for name, tensor in model.state_dict().items()})


def fit(model, x, y):
    """One epoch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    model.train()
    for batch_x, batch_y in zip(x.split(BATCH_SIZE), y.split(BATCH_SIZE), strict=True):
        optimizer.zero_grad()
        nll_loss(model(batch_x), batch_y).backward()
        optimizer.step()


def read_partition_id():
    with open(os.environ["FEDPKG_TASK"]) as file:
        return json.load(file)["partition_id"]


def write_metadata(out_path, **more):
    with open(f"{out_path}-metadata", "w") as file:
        json.dump({"num_examples": NUM_EXAMPLES, **more}, file)


def init_seed(out_path):
    torch.manual_seed(0)
    save_model(Net(), out_path)


def train(in_path, out_path):
    x, y = make_examples(read_partition_id())
    model = load_model(in_path)
    fit(model, x, y)
    save_model(model, out_path)
    write_metadata(out_path)


if __name__ == "__main__":
    fire.Fire({"init_seed": init_seed, "train": train})
