"""The four commands of a client that learns MNIST (28 x 28 pixels, ten classes).

python entrypoint.py init_seed OUT_MODEL             write the model that the first round starts from
python entrypoint.py train     IN_MODEL OUT_MODEL    train it on this client's data
python entrypoint.py validate  IN_MODEL OUT_JSON     measure it on this client's data
python entrypoint.py predict   IN_MODEL OUT_JSON     classify this client's test images
"""

import json
import os
import sys

import fire
import numpy as np
import torch
from torch import nn
from torch.nn.functional import log_softmax, nll_loss, relu


class Net(nn.Module):
    """784 pixels - 64 - 32 - 10 classes."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(784, 64)
        self.fc2 = nn.Linear(64, 32)
        self.fc3 = nn.Linear(32, 10)

    def forward(self, x):
        x = relu(self.fc1(x))
        x = relu(self.fc2(x))
        return log_softmax(self.fc3(x), dim=1)


def save_model(model, path):
    """One array per tensor, under its name. Not compressed: zlib would take longer than the training."""
    np.savez(path, **{name: tensor.numpy() for name, tensor in model.state_dict().items()})


def load_model(path):
    model = Net()
    with np.load(path, allow_pickle=False) as arrays:
        model.load_state_dict({name: torch.from_numpy(arrays[name]) for name in arrays.files})
    return model


def load_data(data_path, part):
    """Images and labels of ``part`` ("train" or "test") of this client's file."""
    data_path = str(data_path or os.environ.get("FEDN_DATA_PATH", ""))
    if data_path.endswith(".npz"):
        with np.load(data_path, allow_pickle=False) as arrays:
            x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
    elif data_path.endswith(".pt"):
        tensors = torch.load(data_path, weights_only=True)
        x, y = tensors[f"x_{part}"], tensors[f"y_{part}"]
    else:
        sys.exit(
            f"no data: expected a .pt or .npz file with x_train, y_train, x_test and y_test, got {data_path!r}; "
            "give it as --data_path or in the environment variable FEDN_DATA_PATH"
        )
    x = torch.as_tensor(x, dtype=torch.float32).reshape(-1, 784) / 255  # pixels are 0 to 255
    return x, torch.as_tensor(y, dtype=torch.int64)


def write_json(path, values):
    with open(path, "w") as file:
        json.dump(values, file)


def init_seed(out_path, seed=0):
    """Write a model with random weights."""
    torch.manual_seed(seed)
    save_model(Net(), out_path)


def train(in_path, out_path, data_path=None, batch_size=32, epochs=1, lr=0.01):
    """Train the model; write it and, beside it, the number of examples, which is its weight in the mean."""
    x, y = load_data(data_path, "train")
    model = load_model(in_path)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    model.train()
    for _ in range(epochs):
        total_loss = 0.0
        for batch in torch.randperm(len(x)).split(batch_size):
            optimizer.zero_grad()
            loss = nll_loss(model(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
            total_loss += loss.item() * len(batch)
        print(f"loss {total_loss / len(x):.4f}")
    save_model(model, out_path)
    metadata = {"num_examples": len(x), "batch_size": batch_size, "epochs": epochs, "lr": lr}
    write_json(out_path + "-metadata", {**metadata, "loss": total_loss / len(x)})


@torch.no_grad()
def validate(in_path, out_path, data_path=None):
    """Write loss and accuracy on the client's training and test images."""
    model = load_model(in_path).eval()
    metrics = {}
    for name, part in [("training", "train"), ("test", "test")]:
        x, y = load_data(data_path, part)
        metrics["num_examples"] = len(x)  # of the test images, which come last
        if len(x):
            log_p = model(x)
            metrics[f"{name}_loss"] = nll_loss(log_p, y).item()
            metrics[f"{name}_accuracy"] = (log_p.argmax(dim=1) == y).float().mean().item()
    write_json(out_path, metrics)


@torch.no_grad()
def predict(in_path, out_path, data_path=None):
    """Write the most likely class of each test image."""
    x, _ = load_data(data_path, "test")
    write_json(out_path, {"predictions": load_model(in_path).eval()(x).argmax(dim=1).tolist()})


if __name__ == "__main__":
    fire.Fire({"init_seed": init_seed, "train": train, "validate": validate, "predict": predict})
