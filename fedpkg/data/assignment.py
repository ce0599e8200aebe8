"""Which examples and columns each client gets: the dataset, the partitioner and the split within a client together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fedpkg.data.partitioners.registry import make_partitioner
from fedpkg.data.sources.base import Dataset
from fedpkg.errors import DataError
from fedpkg.partitions.base import Indices
from fedpkg.partitions.draws import Draws
from fedpkg.partitions.splitting import BORROW, split_examples, within_client

_WITHIN = 4  # a random stream of the seed, after those of `fedpkg.partitions.splitting`


@dataclass(frozen=True)
class Share:
    """What one client gets: for each part (train, validation, test) the split of the dataset, and indices in it.

    ``columns`` are the features that it gets; None: all.
    """

    parts: dict[str, tuple[str, Indices]]
    columns: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Assignment:
    """The shares of all clients; ``dropped`` counts the examples of each split that no client gets.

    ``changes`` is the partitioner if it changes features (noise, rotation) by its method ``transform``.
    """

    shares: list[Share]
    dropped: dict[str, int] = field(default_factory=dict)
    changes: Any = None


def assign(
    dataset: Dataset,
    settings: Mapping[str, Any],
    num_partitions: int | None,
    seed: int,
    *,
    within: Mapping[str, float],
    about: str,
) -> Assignment:
    """Divide a dataset.

    Args:
        settings: The resolved section ``clients.data.partition``.
        within: Fractions of each client's training examples for other parts, such as {validation: 0.1, test: 0.2}.
        about: The dataset in a few words, for messages.

    Raises:
        DataError: It cannot be divided so.
    """
    partitioner = make_partitioner(settings)
    if dataset.has_test and "test" in within:
        hint = "remove test from clients.data.within"
        raise DataError(f"clients.data.within.test: dataset {about} has test examples already", hint=hint)
    if not hasattr(partitioner, "split"):
        return _by_columns(dataset, partitioner, num_partitions, seed, about)
    train = _values(dataset, "train", settings, about)
    test = _values(dataset, "test", settings, about) if dataset.has_test else None
    split = split_examples(partitioner, train, test, num_partitions, seed)
    tests = split.test if test is None else _with_borrowed(dataset, split.train, split.test, seed)
    dropped = {"train": split.dropped_train, "test": split.dropped_test}
    shares = []
    for k, indices in enumerate(split.train):
        parts = {"train": ("train", indices)}
        if within:
            found = _within(dataset, indices, within, np.random.default_rng([seed, _WITHIN, k]), k)
            parts = {name: ("train", part) for name, part in found.items()}
        if tests:
            parts["test"] = ("test", tests[k])
        shares.append(Share(parts))
    return Assignment(shares, dropped, partitioner if hasattr(partitioner, "transform") else None)


def _values(dataset: Dataset, split: str, settings: Mapping[str, Any], about: str) -> npt.NDArray[Any]:
    by = settings.get("by")
    return dataset.labels(split) if by is None else dataset.column(str(by), split, f"dataset {about}")


def _within(
    dataset: Dataset, indices: Indices, within: Mapping[str, float], rng: np.random.Generator, client: int
) -> dict[str, Indices]:
    fractions = {"train": 1 - sum(within.values()), **within}
    if len(indices) < len(fractions):
        raise DataError(
            f"client {client} has {len(indices)} examples, too few for {', '.join(fractions)}",
            hint=f"raise clients.data.partition.min_examples to {len(fractions)} or more, or lower clients.count",
        )
    return within_client(indices, dataset.labels("train")[indices], fractions, rng)


def _with_borrowed(dataset: Dataset, train: list[Indices], test: list[Indices], seed: int) -> list[Indices]:
    """The test examples, with one borrowed from another client for each client without any."""
    draws = Draws(np.random.default_rng([seed, BORROW]))
    train_labels, test_labels = dataset.labels("train"), dataset.labels("test")
    return [part if len(part) else _borrow(train_labels[train[k]], test_labels, draws) for k, part in enumerate(test)]


def _borrow(own: npt.NDArray[Any], test_labels: npt.NDArray[Any], draws: Draws) -> Indices:
    """One test example of the client's most frequent class or, if there is none (or no classes), any."""
    candidates = np.arange(len(test_labels))
    if len(own) and own.ndim == 1 and test_labels.ndim == 1:
        classes, counts = np.unique(own, return_counts=True)
        same = np.flatnonzero(test_labels == classes[counts.argmax()])
        candidates = same if len(same) else candidates
    return candidates[[draws.below(len(candidates))]]


def _by_columns(dataset: Dataset, partitioner: Any, num_partitions: int | None, seed: int, about: str) -> Assignment:
    """Each client gets all examples and labels, and some of the features."""
    x = dataset.arrays["x_train"]
    if x.ndim != 2:
        raise DataError(
            f"dataset {about}: x_train has shape {tuple(x.shape)}; a split by columns needs a table",
            hint="use examples x features",
        )
    names = list(dataset.features or map(str, range(x.shape[1])))
    places = {name: place for place, name in enumerate(names)}
    found = partitioner.split_columns(names, num_partitions, np.random.default_rng([seed, 0]))
    parts = {
        split: (split, np.arange(len(dataset.arrays[f"x_{split}"])))
        for split in ("train", "test")[: 1 + dataset.has_test]
    }
    shares = [Share(parts, np.array([places[name] for name in chosen], np.int64)) for chosen in found]
    return Assignment(shares)
