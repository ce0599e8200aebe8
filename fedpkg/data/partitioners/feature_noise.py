"""Clients differ in their features: each adds noise of its own strength."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fedpkg.data.base import Indices, Needs, Values
from fedpkg.data.draws import Draws
from fedpkg.data.partitioners.inner import Inner, inner_of, split_test_of
from fedpkg.data.partitioners.registry import register_partitioner
from fedpkg.data.partitioners.splitting import needs_of
from fedpkg.registry import NotNegative


@register_partitioner(
    "feature_noise",
    equation="x~ = x + e,  e ~ N(0, sigma k / K),  k = 1 .. K",
    paper="Li et al. 2022, Federated Learning on Non-IID Data Silos: An Experimental Study, arXiv:2102.02079",
)
@dataclass(frozen=True)
class FeatureNoisePartitioner:
    """Another scheme divides the examples; then client k adds Gaussian noise of variance sigma k / K to its features.

    The first client has the least noise, the last client the most. Training and test examples of a client have noise
    of the same strength. Features of integers become float32.

    Args:
        sigma: Variance of the last client's noise, in the square of the features' unit.
        inner: The scheme that divides the examples: its name, or its section.
    """

    sigma: NotNegative = 0.1
    inner: Inner = "iid"

    @property
    def needs(self) -> Needs:
        return needs_of(inner_of(self.inner))

    def split(self, values: Values, num_partitions: int | None, rng: np.random.Generator) -> list[Indices]:
        parts: list[Indices] = inner_of(self.inner).split(values, num_partitions, rng)
        return parts

    def split_test(
        self, values: Values, rng: np.random.Generator, *, train_values: Values, train: list[Indices]
    ) -> list[Indices]:
        return split_test_of(inner_of(self.inner), values, rng, train_values=train_values, train=train)

    def transform(self, features: Values, client: int, num_partitions: int, rng: np.random.Generator) -> Values:
        kind: Any = features.dtype if features.dtype.kind == "f" else np.float32
        deviation = np.sqrt(self.sigma * (client + 1) / num_partitions)
        noise = Draws(rng).normal(features.size).reshape(features.shape)
        return np.asarray(features + deviation * noise, kind)
