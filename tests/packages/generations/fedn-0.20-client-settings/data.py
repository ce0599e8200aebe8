"""The client's examples."""

import os

import numpy as np

with np.load(os.environ["FEDN_DATA_PATH"]) as data:  # read once, at import
    x, y = data["x"].astype(np.float32), data["y"].astype(np.float32)
