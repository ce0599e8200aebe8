"""Columns of the wine data at each client, labels at the server."""

import torch
from sklearn.datasets import load_wine
from torch import nn

WIDTH = 4


def load_columns(partition_id, num_partitions):
    x, _ = load_wine(return_X_y=True)
    x = torch.tensor((x - x.mean(0)) / x.std(0), dtype=torch.float32)
    return x[:, partition_id::num_partitions]


def load_labels():
    return torch.tensor(load_wine(return_X_y=True)[1])


def make_bottom(partition_id, columns):
    """The part of the net at a client, the same whenever it is made."""
    generator = torch.Generator().manual_seed(partition_id)
    bottom = nn.Linear(columns, WIDTH)
    with torch.no_grad():
        for parameter in bottom.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return nn.Sequential(bottom, nn.Tanh())


def make_top(num_clients):
    torch.manual_seed(11)
    return nn.Linear(WIDTH * num_clients, 3)
