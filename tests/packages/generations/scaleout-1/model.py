"""One array."""

import sys

import numpy as np
from scaleoututil.helpers.helpers import get_helper

helper = get_helper("numpyhelper")

if __name__ == "__main__":
    helper.save([np.zeros(2)], sys.argv[1])
