"""The commands of a client: python entrypoint.py build | train | validate."""

import fire
import torch
from fedpkg import client
from model import Net
from torch.nn.functional import cross_entropy


def load_data(part):
    """The images and labels of this client; ``part`` is train or test."""
    arrays = client.open_data()
    x = torch.tensor(arrays[f"x_{part}"], dtype=torch.float32).reshape(-1, 64) / 16
    return x, torch.tensor(arrays[f"y_{part}"], dtype=torch.int64)


def build(out_path):
    """Write the model that the first round begins with."""
    client.save(out_path, Net())


def train(in_path, out_path, lr=0.1, epochs=1, batch_size=16):
    """Train the model on this client's images."""
    model = Net()
    given = client.load(in_path, model)
    x, y = load_data("train")
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(batch_size):
            optimizer.zero_grad()
            loss = cross_entropy(model(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
    client.save(out_path, model, given, num_examples=len(x), train_loss=loss.item())


def validate(in_path, out_path):
    """Measure the model on this client's test images."""
    model = Net()
    client.load(in_path, model)
    x, y = load_data("test")
    with torch.no_grad():
        scores = model(x)
    accuracy = (scores.argmax(dim=1) == y).float().mean()
    client.save_metrics(out_path, {"test_loss": cross_entropy(scores, y), "test_accuracy": accuracy})


if __name__ == "__main__":
    fire.Fire({"build": build, "train": train, "validate": validate})
