"""Logistic regression on the breast cancer data."""

import warnings

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression


def load_data(partition_id, num_partitions):
    x, y = load_breast_cancer(return_X_y=True)
    x = (x - x.mean(0)) / x.std(0)
    return x[partition_id::num_partitions][: 100 + 30 * partition_id], y[partition_id::num_partitions][
        : 100 + 30 * partition_id
    ]


def get_model(ndarrays):
    model = LogisticRegression(max_iter=2, warm_start=True)
    model.classes_ = np.array([0, 1])
    model.coef_, model.intercept_ = ndarrays
    return model


def fit(model, x, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has not converged
        model.fit(x, y)
    return [model.coef_, model.intercept_]
