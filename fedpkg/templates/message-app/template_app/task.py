"""The model, the data of a client, and what is done with both. Replace these by your own."""

import torch
from sklearn.datasets import load_digits
from torch import nn


class Net(nn.Sequential):
    """64 pixels, 32 hidden units, 10 classes."""

    def __init__(self):
        super().__init__(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def load_data(partition_id, num_partitions):
    """The training and test examples of one client: every ``num_partitions``-th of scikit-learn's digits."""
    x, y = load_digits(return_X_y=True)
    x = torch.tensor(x[partition_id::num_partitions], dtype=torch.float32) / 16
    y = torch.tensor(y[partition_id::num_partitions])
    first = len(x) // 5
    return (x[first:], y[first:]), (x[:first], y[:first])


def fit(model, data, epochs, batch_size, learning_rate):
    """Train a model, and return the mean loss of the last epoch."""
    x, y = data
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    for _ in range(epochs):
        total = 0.0
        for batch in torch.randperm(len(x)).split(batch_size):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
    return total / len(x)


def measure(model, data):
    """The loss and the accuracy of a model."""
    x, y = data
    with torch.no_grad():
        scores = model(x)
    loss = nn.functional.cross_entropy(scores, y).item()
    return loss, (scores.argmax(dim=1) == y).float().mean().item()
