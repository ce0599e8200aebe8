"""The network, and its weights as FEDn wants them."""

import collections

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(2, 4)
        self.fc2 = nn.Linear(4, 1)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))


def create_seed_model():
    model = Net()
    return model, nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=0.01)


def weights_of(model):
    return collections.OrderedDict((name, tensor.numpy()) for name, tensor in model.state_dict().items())


def set_weights(model, weights):
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
