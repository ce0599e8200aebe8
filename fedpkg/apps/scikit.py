"""The datasets that scikit-learn contains, as arrays of training and test examples."""

from __future__ import annotations

from typing import Any

NAMES = ("sklearn/digits", "sklearn/breast_cancer", "sklearn/wine", "sklearn/iris")


def arrays_of_scikit(name: str) -> dict[str, Any]:
    """Raw features as float32 (digits: pixels 0 … 16), labels as int64, a fifth for tests; shuffled with a fixed seed.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    import numpy as np  # here: the configuration needs the names alone
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name.removeprefix('sklearn/')}")()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    x, y = bunch.data.astype(np.float32)[order], bunch.target.astype(np.int64)[order]
    train = len(y) - round(len(y) * 0.2)
    return {"x_train": x[:train], "y_train": y[:train], "x_test": x[train:], "y_test": y[train:]}
