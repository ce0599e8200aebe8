"""Clients differ in their features: each adds noise of its own strength."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fedpkg.data.partitioners.inner import WithInner
from fedpkg.data.partitioners.registry import register_partitioner
from fedpkg.partitions.base import Values
from fedpkg.partitions.draws import Draws
from fedpkg.registry import NotNegative


@register_partitioner(
    "feature_noise",
    equation="x~ = x + e,  e ~ N(0, sigma k / K),  k = 1 .. K",
    paper="Li et al. 2022, Federated Learning on Non-IID Data Silos: An Experimental Study, arXiv:2102.02079",
)
@dataclass(frozen=True)
class FeatureNoisePartitioner(WithInner):
    """Another scheme divides the examples; then client k adds Gaussian noise of variance sigma k / K to its features.

    The first client has the least noise, the last client the most. Training and test examples of a client have noise
    of the same strength. Features of integers become float32.

    Args:
        sigma: Variance of the last client's noise, in the square of the features' unit.
    """

    sigma: NotNegative = 0.1

    def transform(self, features: Values, client: int, num_partitions: int, rng: np.random.Generator) -> Values:
        kind: Any = features.dtype if features.dtype.kind == "f" else np.float32
        deviation = np.sqrt(self.sigma * (client + 1) / num_partitions)
        noise = Draws(rng).normal(features.size).reshape(features.shape)
        return np.asarray(features + deviation * noise, kind)
