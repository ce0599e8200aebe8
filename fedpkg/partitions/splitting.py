"""Splits training and test examples by a partitioner, checks what it returned, and splits within a client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedpkg.errors import DataError
from fedpkg.partitions.base import Indices, Needs, Partitioner, Values
from fedpkg.partitions.dealing import by_owner, coded, counts_of, deal, deal_classes
from fedpkg.partitions.draws import Draws

_TRAIN, _TEST, BORROW, TRANSFORM = range(4)  # independent random streams of one seed


@dataclass(frozen=True)
class Split:
    """The sorted indices of each client, and the numbers of examples that no client got."""

    train: list[Indices]
    test: list[Indices]
    dropped_train: int = 0
    dropped_test: int = 0


def given_count(num_partitions: int | None) -> int:
    """The number of clients, for schemes that cannot tell it from the data. Raises DataError if it is not set."""
    if num_partitions is None:
        raise DataError("the number of clients is not known", hint="set clients.count")
    return num_partitions


def needs_of(partitioner: Any) -> Needs:
    needs: Needs = getattr(partitioner, "needs", "labels")
    return needs


def split_examples(
    partitioner: Partitioner, train: Values, test: Values | None, num_partitions: int | None, seed: int
) -> Split:
    """Divide training and test examples among the clients, with the same skew.

    Args:
        train: what the partitioner needs of each training example (`needs_of`).
        test: the same of the test examples; None if there are none.
        seed: the same seed gives the same split.

    Raises:
        DataError: the split cannot be made, or the partitioner's result is not a split.
    """
    parts = partitioner.split(train, num_partitions, np.random.default_rng([seed, _TRAIN]))
    parts, dropped = _checked(parts, len(train), num_partitions, partitioner)
    if test is None:
        return Split(parts, [], dropped)
    rng = np.random.default_rng([seed, _TEST])
    tests = split_test_of(partitioner, test, rng, train_values=train, train=parts)
    tests, dropped_test = _checked(tests, len(test), len(parts), partitioner)
    return Split(parts, tests, dropped, dropped_test)


def _checked(parts: Any, total: int, num_partitions: int | None, partitioner: Any) -> tuple[list[Indices], int]:
    """The parts and the number of indices in none of them. Raises DataError: it is not a split."""
    where = f"the partitioner {type(partitioner).__name__}"
    try:
        arrays = [np.asarray(part) for part in parts]
        is_whole = all(array.ndim == 1 and (array.dtype.kind in "iu" or not len(array)) for array in arrays)
    except (TypeError, ValueError):
        arrays, is_whole = [], False
    if not is_whole or not arrays:
        raise DataError(f"{where} did not return a list of arrays of indices")
    if num_partitions is not None and len(arrays) != num_partitions:
        raise DataError(f"{where} returned {len(arrays)} parts for {num_partitions} clients")
    everything = np.concatenate([array.astype(np.int64, copy=False) for array in arrays])
    if len(everything) and (everything.min() < 0 or everything.max() >= total):
        raise DataError(f"{where} returned an index that none of the {total} examples has")
    if len(everything) and (times := np.bincount(everything, minlength=total)).max() > 1:
        raise DataError(f"{where} gave example {int(times.argmax())} to more than one client, or twice to one")
    ends = np.cumsum([len(array) for array in arrays])[:-1]
    is_rising = np.append(everything[1:] > everything[:-1], True)
    is_rising[ends[(ends > 0) & (ends < len(everything))] - 1] = True  # from the last one of a part to the next part
    parts = np.split(everything, ends)
    return parts if is_rising.all() else [np.sort(part) for part in parts], total - len(everything)


def split_test_of(
    partitioner: Any, values: Values, rng: np.random.Generator, *, train_values: Values, train: list[Indices]
) -> list[Indices]:
    """Divide test examples by the partitioner's own ``split_test`` or, without one, as the training examples."""
    if hasattr(partitioner, "split_test"):
        parts: list[Indices] = partitioner.split_test(values, rng, train_values=train_values, train=train)
        return parts
    return split_alike(needs_of(partitioner), values, rng, train_values=train_values, train=train)


def split_alike(
    needs: Needs, values: Values, rng: np.random.Generator, *, train_values: Values, train: list[Indices]
) -> list[Indices]:
    """Divide test examples as the training examples were divided.

    - ``labels``: each class in the proportions of its training examples. A class that is only in the test examples is
      divided by the clients' sizes, and a class whose training examples were all dropped is dropped, too.
    - ``ids``: an example goes to the client with the training examples of its id, if there is one.
    - otherwise in proportion to the clients' numbers of training examples.
    """
    draws = Draws(rng)
    sizes = np.array([len(part) for part in train])
    if needs == "ids":
        return _by_id(values, train_values, train)
    if needs != "labels" or values.ndim != 1:
        counts = counts_of(sizes[None] / max(1, sizes.sum()), np.array([len(values)]))[0]
        return deal(counts, draws.permutation(len(values)), len(values))
    classes, _, totals = coded(values)
    seen, is_known = seen_by_class(classes, train_values, train)
    seen[~is_known] = sizes
    is_dropped = seen.sum(axis=1) == 0
    seen[is_dropped] = 1
    counts = counts_of(seen / seen.sum(axis=1, keepdims=True), np.where(is_dropped, 0, totals))
    return deal_classes(values, counts, draws)


def seen_by_class(
    classes: Values, train_values: Values, train: list[Indices]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Training examples by class (row) and client (column), and which classes are in the training examples at all."""
    known, codes, _ = coded(train_values)
    seen = np.zeros((len(classes), len(train)))
    row_of = np.full(len(known), len(classes))  # other classes are counted in a last row, which is left out
    _, in_known, in_classes = np.intersect1d(known, classes, assume_unique=True, return_indices=True)
    row_of[in_known] = in_classes
    for client, part in enumerate(train):
        seen[:, client] = np.bincount(row_of[codes[part]], minlength=len(classes) + 1)[:-1]
    return seen, np.isin(classes, known)


def _by_id(values: Values, train_values: Values, train: list[Indices]) -> list[Indices]:
    kept = np.concatenate(train)
    owner = np.repeat(np.arange(len(train)), [len(part) for part in train])
    ids, first = np.unique(train_values[kept], return_index=True)
    found = np.minimum(np.searchsorted(ids, values), len(ids) - 1)
    return by_owner(np.where(ids[found] == values, owner[first[found]], -1), len(train))


def within_client(
    indices: Indices, labels: Values | None, fractions: Mapping[str, float], rng: np.random.Generator
) -> dict[str, Indices]:
    """Split one client's examples into parts, such as train, validate and test; the classes are spread evenly.

    The sizes are the fractions of the examples, rounded, but every part gets an example if there are enough. Examples
    are sorted by class (in a random order of classes, at random within one) and each part takes them at even
    distances. So each part has the client's mixture of classes, to within one example of each class.

    Args:
        labels: the class of each entry of ``indices``. None, or anything but one class per example: not considered.
        fractions: positive numbers that add up to 1.

    Raises:
        DataError: the fractions are not such numbers.
    """
    wanted = np.array(list(fractions.values()), np.float64)
    if not len(wanted) or not (wanted > 0).all() or abs(wanted.sum() - 1) > 1e-9:
        told = ", ".join(f"{name}: {value:g}" for name, value in fractions.items())
        raise DataError(
            f"the fractions of a client's examples must be above 0 and add up to 1, but are {{{told}}}",
            hint="for example {train: 0.8, test: 0.2}",
        )
    draws, total = Draws(rng), len(indices)
    order = draws.permutation(total)
    if labels is not None and labels.ndim == 1 and labels.dtype.kind in "biuUS" and total:
        _, codes = np.unique(labels, return_inverse=True)
        order = order[np.argsort(draws.permutation(int(codes.max()) + 1)[codes[order]], kind="stable")]
    sizes = sizes_of(wanted, total, at_least=1 if total >= len(wanted) else 0)
    turns = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes])
    part_of = np.repeat(np.arange(len(sizes)), sizes)[np.argsort(turns, kind="stable")]
    return {name: np.sort(indices[order[part_of == part]]) for part, name in enumerate(fractions)}


def sizes_of(weights: npt.NDArray[np.float64], total: int, *, at_least: int) -> npt.NDArray[np.int64]:
    """Whole numbers that sum to ``total``, in proportion to ``weights``, none below ``at_least``.

    Each is ``total`` times its share, rounded (the sums up to it are rounded, so that errors do not add up). Those
    that are too small are raised to ``at_least``; what that takes is taken from what the others have above it, in
    proportion.
    """
    shares = (weights / np.cumsum(weights)[-1])[None]
    sizes = counts_of(shares, np.array([total]))[0]
    if (sizes < at_least).any():
        spare = np.maximum(sizes - at_least, 0)
        left = total - at_least * len(sizes)
        sizes = at_least + counts_of((spare / max(1, spare.sum()))[None], np.array([left]))[0]
    return np.asarray(sizes, np.int64)
