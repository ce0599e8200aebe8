"""Which wine is it? A linear classifier; data of a client."""

import torch
from sklearn.datasets import load_wine
from torch import nn


def make_model():
    return nn.Linear(13, 3)


def wines():
    x, y = load_wine(return_X_y=True)
    return torch.tensor((x - x.mean(0)) / x.std(0), dtype=torch.float32), torch.tensor(y)


def load_data(partition_id, num_partitions):
    x, y = wines()
    return x[partition_id::num_partitions], y[partition_id::num_partitions]


def loss_and_accuracy(model, data):
    x, y = data
    with torch.no_grad():
        scores = model(x)
    return nn.functional.cross_entropy(scores, y).item(), (scores.argmax(1) == y).float().mean().item()


def step(model, data, lr, momentum, velocity):
    """One step with momentum; the velocity is that of this client alone, and changes."""
    loss = nn.functional.cross_entropy(model(data[0]), data[1])
    for (name, parameter), gradient in zip(
        model.named_parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True
    ):
        velocity[name] = momentum * velocity.get(name, torch.zeros_like(parameter)) + gradient
        parameter.data -= lr * velocity[name]
    return loss.item()
