"""The model: replace it by your own."""

from torch import nn


class Net(nn.Sequential):
    """64 pixels, 32 hidden units, 10 classes."""

    def __init__(self):
        super().__init__(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
