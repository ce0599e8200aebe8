"""What pkgmod.main imports, relatively."""

import numpy as np


def read(path):
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def write(path, tensors):
    with open(path, "wb") as file:
        np.savez(file, **tensors)
