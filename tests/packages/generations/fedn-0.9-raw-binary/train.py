"""FEDn 0.9.4: the numpyhelper with files of the binaryhelper."""

import sys

from fedn.utils.helpers.helpers import save_metadata
from model import helper

if __name__ == "__main__":
    weights = helper.load(sys.argv[1], file_type="raw_binary")
    helper.save([weights[:5] * 1.1, weights[5:] / 3], sys.argv[2], file_type="raw_binary")
    save_metadata({"num_examples": 7}, sys.argv[2])
