"""FEDn 0.9.4: the binaryhelper, for clients in C++."""

import sys

from fedn.utils.helpers.helpers import save_metadata
from model import helper

if __name__ == "__main__":
    weights = helper.load(sys.argv[1])
    helper.save([weights[:5] * 1.1, weights[5:] / 3], sys.argv[2])
    save_metadata({"num_examples": 7}, sys.argv[2])
