"""The network, and its model file: a list of arrays, written by FEDn's numpyhelper."""

import collections

import torch
from fedn.utils.helpers.helpers import get_helper

HELPER_MODULE = "numpyhelper"
helper = get_helper(HELPER_MODULE)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = torch.nn.Linear(64, 48)
        self.fc2 = torch.nn.Linear(48, 10)

    def forward(self, x):
        return self.fc2(torch.nn.functional.relu(self.fc1(x.reshape(x.size(0), 64))))


def compile_model():
    return Net()


def save_parameters(model, out_path):
    helper.save([value.cpu().numpy() for value in model.state_dict().values()], out_path)


def load_parameters(model_path):
    model = compile_model()
    names = model.state_dict().keys()
    values = [torch.tensor(array) for array in helper.load(model_path)]
    model.load_state_dict(collections.OrderedDict(zip(names, values, strict=True)), strict=True)
    return model


def init_seed(out_path="seed.npz"):
    torch.manual_seed(1)
    save_parameters(compile_model(), out_path)


if __name__ == "__main__":
    init_seed("../seed.npz")
