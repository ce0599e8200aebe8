"""Bare float64 values, end to end, by the numpyhelper."""

import sys

import numpy as np
from fedn.utils.helpers.helpers import get_helper

helper = get_helper("numpyhelper")

if __name__ == "__main__":
    helper.save([np.linspace(0, 1, 5), np.full((1, 3), np.pi)], sys.argv[1], file_type="raw_binary")
