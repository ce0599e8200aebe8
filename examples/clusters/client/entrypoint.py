"""A ward that learns to tell benign from malignant tumours: the commands init_seed, train and validate."""

import fire
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from fedpkg import client

# A typical value of each of the 30 features: means, standard errors and worst values of ten properties of cell nuclei.
SCALES = torch.tensor(
    [20, 25, 130, 1000, *[0.15] * 6, 0.8, 2, 6, 80, *[0.03] * 6, 25, 35, 170, 1500, *[0.4] * 6], dtype=torch.float32
)


def make_model():
    return nn.Linear(30, 2)


def data_of(part):
    """The features of this ward's patients, and whether each tumour is benign."""
    data = client.open_data()
    return torch.as_tensor(data[f"x_{part}"]).float() / SCALES, torch.as_tensor(data[f"y_{part}"]).long()


def init_seed(out_path):
    client.save(out_path, make_model())


def train(in_path, out_path, lr=0.5, epochs=5):
    model, (x, y) = make_model(), data_of("train")
    given = client.load(in_path, model)
    lr_scale = client.task().parameters.get("lr_scale", 1.0)  # of the ward's hospital, or of one above it
    optimizer = torch.optim.SGD(model.parameters(), lr=lr * lr_scale)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(16):
            optimizer.zero_grad()
            loss = cross_entropy(model(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
    client.save(out_path, model, given, num_examples=len(x), loss=loss.item())


def validate(in_path, out_path):
    model, (x, y) = make_model(), data_of("test")
    client.load(in_path, model)
    with torch.no_grad():
        hits = model(x).argmax(dim=1) == y
    client.save_metrics(out_path, {"accuracy": hits.float().mean(), "num_examples": len(x)})


if __name__ == "__main__":
    fire.Fire({"init_seed": init_seed, "train": train, "validate": validate})
