"""What schemes share that change the features of clients after another scheme has divided the examples."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import numpy as np
from msgspec import Meta

from fedpkg.data.base import Indices, Values
from fedpkg.data.partitioners.registry import make_partitioner
from fedpkg.data.partitioners.splitting import needs_of, split_alike
from fedpkg.registry import Part

Inner: TypeAlias = Annotated[
    Any, Part("partitioner"), Meta(description="The scheme that divides the examples: its name, or its section.")
]


def inner_of(inner: Any) -> Any:
    """The partitioner that the parameter ``inner`` is or names."""
    return make_partitioner({"name": inner}) if isinstance(inner, str) else inner


def split_test_of(
    partitioner: Any, values: Values, rng: np.random.Generator, *, train_values: Values, train: list[Indices]
) -> list[Indices]:
    """The test examples, by the partitioner's own method or, without one, as the training examples."""
    if hasattr(partitioner, "split_test"):
        parts: list[Indices] = partitioner.split_test(values, rng, train_values=train_values, train=train)
        return parts
    return split_alike(needs_of(partitioner), values, rng, train_values=train_values, train=train)
