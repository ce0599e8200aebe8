"""The base of schemes that change the features of clients after another scheme has divided the examples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np

from fedpkg.data.partitioners.registry import make_partitioner
from fedpkg.partitions.base import Indices, Needs, Values
from fedpkg.partitions.splitting import needs_of, split_test_of
from fedpkg.registry import Part


@dataclass(frozen=True)
class WithInner:
    """Divides the examples as the inner scheme does.

    Args:
        inner: The scheme that divides the examples: its name, or its section.
    """

    inner: Annotated[Any, Part("partitioner")] = field(default="iid", kw_only=True)

    @property
    def needs(self) -> Needs:
        return needs_of(self._inner)

    def split(self, values: Values, num_partitions: int | None, rng: np.random.Generator) -> list[Indices]:
        parts: list[Indices] = self._inner.split(values, num_partitions, rng)
        return parts

    def split_test(
        self, values: Values, rng: np.random.Generator, *, train_values: Values, train: list[Indices]
    ) -> list[Indices]:
        return split_test_of(self._inner, values, rng, train_values=train_values, train=train)

    @property
    def _inner(self) -> Any:
        """The partitioner that ``inner`` is or names."""
        return make_partitioner({"name": self.inner}) if isinstance(self.inner, str) else self.inner
