"""Clients differ in their labels: the smaller alpha, the fewer classes a client has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedpkg.data.base import Indices, Labels, by_owner
from fedpkg.errors import DataError

_ATTEMPTS = 100


@dataclass(frozen=True)
class DirichletPartitioner:
    """Dirichlet label skew: each class c is divided among the K clients in proportions p_c ~ Dir_K(alpha).

    alpha → ∞ gives every client the same share of every class; alpha → 0 gives each class to one client. Proportions
    are drawn again, up to 100 times, until every client has ``min_examples``.

    Sources: label skew by a Dirichlet prior of concentration alpha, Hsu, Qi, Brown, "Measuring the Effects of
    Non-Identical Data Distribution for Federated Visual Classification", arXiv:1909.06335 (they draw per client);
    the draw per class, as here, Yurochkin et al., "Bayesian Nonparametric Federated Learning of Neural Networks",
    arXiv:1905.12022.
    """

    alpha: float = 0.5
    min_examples: int = 1

    def split(self, labels: Labels, num_partitions: int, rng: np.random.Generator) -> list[Indices]:
        if labels.ndim != 1 or labels.dtype.kind not in "biuUS":
            raise DataError(
                f"a Dirichlet partition needs one class per example, but labels have shape {labels.shape} and dtype "
                f"{labels.dtype}",
                hint="store labels as whole numbers, or set clients.data.partition.name to iid",
            )
        classes, sizes = np.unique(labels, return_counts=True)
        for _attempt in range(_ATTEMPTS):
            proportions = rng.dirichlet(np.full(num_partitions, self.alpha), size=len(classes))
            counts = _counts(proportions, sizes)
            if counts.sum(axis=0).min() >= self.min_examples:
                return _assign(labels, classes, counts, rng)
        raise DataError(
            f"no Dirichlet partition with alpha {self.alpha:g} of {len(labels)} training examples gave each of "
            f"{num_partitions} clients at least {self.min_examples} (tried {_ATTEMPTS} times)",
            hint=f"raise partition.alpha (now {self.alpha:g}), or lower clients.count (now {num_partitions}) or "
            f"partition.min_examples (now {self.min_examples})",
        )

    def split_test(
        self, labels: Labels, rng: np.random.Generator, *, train_labels: Labels, train: list[Indices]
    ) -> list[Indices]:
        """Divide each class in the proportions of its training examples; a class without any, evenly."""
        classes, sizes = np.unique(labels, return_counts=True)
        owner = np.repeat(np.arange(len(train)), [len(part) for part in train])
        owned_labels = train_labels[np.concatenate(train)]
        shares = np.ones((len(classes), len(train)))
        for row, label in zip(shares, classes, strict=True):
            seen = np.bincount(owner[owned_labels == label], minlength=len(train))
            if seen.any():
                row[:] = seen
        return _assign(labels, classes, _counts(shares / shares.sum(axis=1, keepdims=True), sizes), rng)


def _counts(proportions: npt.NDArray[np.float64], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Whole numbers in ``proportions`` (classes x clients) whose rows sum to ``sizes``."""
    ends = np.rint(np.cumsum(proportions, axis=1) * sizes[:, None]).astype(np.int64)
    ends[:, -1] = sizes
    return np.diff(ends, axis=1, prepend=0)


def _assign(
    labels: npt.NDArray[Any], classes: npt.NDArray[Any], counts: npt.NDArray[np.int64], rng: np.random.Generator
) -> list[Indices]:
    """Give each client its count of every class, chosen at random."""
    num_partitions = counts.shape[1]
    owner = np.empty(len(labels), np.int64)
    for label, row in zip(classes, counts, strict=True):
        owner[rng.permutation(np.flatnonzero(labels == label))] = np.repeat(np.arange(num_partitions), row)
    return by_owner(owner, num_partitions)
