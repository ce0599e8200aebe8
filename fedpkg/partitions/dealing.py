"""How examples are dealt to clients: sorted lists of indices from the owner of each, and the examples of each class."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fedpkg.errors import DataError
from fedpkg.partitions.base import Indices, Values
from fedpkg.partitions.draws import Draws

Counts = npt.NDArray[np.int64]

_MANY = 1 << 16  # NumPy sorts numbers of 16 bits by radix, ten times as fast


def stable_order(codes: npt.NDArray[Any], count: int) -> Indices:
    """The indices that sort whole numbers 0 … count - 1; equal ones keep their order."""
    narrow = codes.astype(np.uint16) if count <= _MANY else codes
    return np.argsort(narrow, kind="stable").astype(np.int64, copy=False)


def by_owner(owner: npt.NDArray[Any], num_partitions: int) -> list[Indices]:
    """The sorted indices of every owner 0 … num_partitions - 1; those of owner -1 go to no one."""
    kept = None
    if len(owner) and owner.min() < 0:
        kept = np.flatnonzero(owner >= 0)
        owner = owner[kept]
    order = stable_order(owner, num_partitions)
    order = order if kept is None else kept[order]
    ends = np.cumsum(np.bincount(owner, minlength=num_partitions))
    return np.split(order, ends[:-1])


def deal(sizes: Counts, order: Indices, total: int) -> list[Indices]:
    """Give each client its number of the indices in ``order``, one client after another; the rest is dropped."""
    owner = np.full(total, -1, np.int32)
    owner[order[: int(sizes.sum())]] = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    return by_owner(owner, len(sizes))


def check_classes(values: Values, scheme: str) -> None:
    """Refuse values that are no classes.

    Raises:
        DataError: there is more than one number per example, a number with a fraction, NaN, or mixed types.
    """
    if values.ndim == 1 and values.dtype.kind in "biuUS":
        return
    if values.ndim == 1 and values.dtype.kind == "f" and (is_nan := np.isnan(values)).any():
        raise DataError(
            f"{scheme} needs one class per example, but {int(is_nan.sum())} of {len(values)} labels are NaN, the first "
            f"that of example {int(is_nan.argmax())}",
            hint="remove these examples, or give them a label",
        )
    raise DataError(
        f"{scheme} needs one class per example, but labels have shape {values.shape} and dtype {values.dtype}",
        hint="store labels as whole numbers, or set clients.data.partition.name to iid",
    )


def coded(values: Values) -> tuple[npt.NDArray[Any], npt.NDArray[Any], Counts]:
    """The different values in order, for each example the position of its value, and how often each value occurs."""
    if values.dtype.kind in "iu" and len(values):
        low, high = int(values.min()), int(values.max())
        if high - low < max(_MANY, len(values)):
            wide = values if values.dtype.itemsize == 8 else values.astype(np.int64)
            codes = (wide - wide.dtype.type(low)).astype(np.uint16 if high - low < _MANY else np.int64)
            times = np.bincount(codes)
            present = np.flatnonzero(times)
            if len(present) < len(times):
                codes = (np.cumsum(times > 0) - 1).astype(codes.dtype)[codes]
            return (present + low).astype(values.dtype), codes, times[present]
    different, codes, times = np.unique(values, return_inverse=True, return_counts=True)
    return different, codes, times


def counts_of(shares: npt.NDArray[np.float64], totals: Counts) -> Counts:
    """Whole numbers in the proportions ``shares`` (rows x clients, row sums 1) whose rows sum to ``totals``."""
    ends = np.rint(np.cumsum(shares, axis=1) * totals[:, None]).astype(np.int64)
    ends = np.minimum(ends, totals[:, None])
    ends[:, -1] = totals
    return np.diff(ends, axis=1, prepend=0)


def deal_classes(labels: Values, counts: Counts, draws: Draws) -> list[Indices]:
    """Give each client its count of every class (classes x clients), chosen at random."""
    classes, codes, sizes = coded(labels)
    order = draws.order_within(codes, len(labels), len(classes))
    owner = np.full(len(labels), -1, np.int32)
    clients = np.arange(counts.shape[1], dtype=np.int32)
    for end, size, row in zip(np.cumsum(sizes), sizes, counts, strict=True):
        owners = np.repeat(clients, row)
        owner[order[end - size :][: len(owners)]] = owners
    return by_owner(owner, counts.shape[1])


def check_ids(values: Values) -> tuple[npt.NDArray[Any], Indices]:
    """The different ids in their order, and for each example the position of its id.

    Raises:
        DataError: there is more than one id per example, an id is missing (NaN), or numbers have a fraction.
    """
    if values.ndim != 1 or values.dtype.kind not in "biuUS":
        problem = f"the column has shape {values.shape} and dtype {values.dtype}"
        if values.ndim == 1 and values.dtype.kind == "f" and (is_nan := np.isnan(values)).any():
            problem = f"{int(is_nan.sum())} of {len(values)} are NaN, the first that of example {int(is_nan.argmax())}"
        raise DataError(f"a partition by ids needs one id per example, but {problem}", hint="use whole numbers or text")
    ids, codes, _ = coded(values)
    return ids, codes.astype(np.int64, copy=False)
