"""The update of each client, known beforehand."""

import numpy as np


def update(partition_id):
    return {"w": (1 + partition_id) * np.linspace(-1, 1, 5), "b": np.array([0.1 * partition_id])}
