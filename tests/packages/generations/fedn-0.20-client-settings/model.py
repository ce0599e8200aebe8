"""Two layers, as a list of arrays."""

import sys

import numpy as np
from fedn.utils.helpers.helpers import get_helper

helper = get_helper("numpyhelper")

if __name__ == "__main__":
    rng = np.random.default_rng(0)
    helper.save([rng.standard_normal((2, 3), dtype=np.float32), np.zeros(3, np.float32)], sys.argv[1])
