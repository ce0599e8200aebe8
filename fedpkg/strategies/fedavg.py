"""FedAvg: federated averaging [McMahan et al. 2017, Communication-Efficient Learning, arXiv:1602.05629, Alg. 1]."""

from __future__ import annotations

from fedpkg.strategies.mean import WeightedMean
from fedpkg.strategies.pipeline import Pipeline


def fedavg() -> Pipeline:
    """The global model becomes the mean of the clients' models, weighted by ``num_examples``."""
    return Pipeline(aggregator=WeightedMean())
