"""Boosted trees on the breast cancer data."""

import xgboost as xgb
from sklearn.datasets import load_breast_cancer

PARAMETERS = {"objective": "binary:logistic", "max_depth": 3, "eta": 0.3, "nthread": 1, "seed": 0}


def load_data(partition_id, num_partitions):
    x, y = load_breast_cancer(return_X_y=True)
    return xgb.DMatrix(x[partition_id::num_partitions], label=y[partition_id::num_partitions])


def grown(raw, data, last_only):
    """One tree more than the booster has; the first one where it has none."""
    if not raw:
        booster = xgb.train(PARAMETERS, data, num_boost_round=1)
    else:
        booster = xgb.Booster(params=PARAMETERS)
        booster.load_model(bytearray(raw))
        booster.update(data, booster.num_boosted_rounds())
        count = booster.num_boosted_rounds()
        booster = booster[count - 1 : count] if last_only else booster
    return bytes(booster.save_raw("json"))
