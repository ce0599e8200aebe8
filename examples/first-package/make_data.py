"""Write data/digits.npz: the 1797 digits of scikit-learn, four fifths of them for training."""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

x, y = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(x))
test, train = np.split(order, [len(x) // 5])

Path("data").mkdir(exist_ok=True)
np.savez("data/digits.npz", x_train=x[train], y_train=y[train], x_test=x[test], y_test=y[test])
