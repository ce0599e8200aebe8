"""The norm of a model."""

import os
import sys

from model import helper
from scaleoututil.helpers.helpers import save_metrics

if __name__ == "__main__":
    assert not os.path.exists("notes.txt"), "listed in .scaleoutignore"
    save_metrics({"norm": helper.norm(helper.load(sys.argv[1]))}, sys.argv[2])
