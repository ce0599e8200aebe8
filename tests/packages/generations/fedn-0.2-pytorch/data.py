"""The same examples for every client."""

import torch


def read_data():
    x = torch.arange(16.0).reshape(8, 2) / 16
    return x, x.sum(1, keepdim=True)
