"""Clients of given sizes differ in their labels: each client draws its own mixture of classes."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt

from fedpkg.errors import DataError
from fedpkg.partitions.base import Indices, Needs, Values
from fedpkg.partitions.bounds import Amount, Meta
from fedpkg.partitions.dealing import Counts, check_classes, coded, deal_classes, stable_order
from fedpkg.partitions.draws import Draws
from fedpkg.partitions.schemes import scheme
from fedpkg.partitions.sizes import Sizes, given_sizes
from fedpkg.partitions.splitting import given_count, sizes_of

_BLOCKS = 256  # draws that are made at a time
_REDRAWS = 4  # of a class that is used up, before the shares of the other classes are computed for these clients


@scheme(
    "inner_dirichlet",
    equation="q_k ~ Dir_C(alpha),  P(label = c | client k) = q_kc",
    paper="Acar et al. 2021, Federated Learning Based on Dynamic Regularization, arXiv:2111.04263",
)
@dataclass(frozen=True)
class InnerDirichletPartitioner:
    """Dirichlet label skew with given sizes: client k draws its own mixture q_k ~ Dir_C(alpha) of the classes.

    Unlike `dirichlet`, this scheme sets the sizes of the clients, so label skew and quantity skew can be studied apart.
    The examples are drawn client after client in a random order. A class that is used up leaves every mixture, and the
    other shares of the mixture grow. So the last examples are less skewed than alpha says, above all with a small alpha
    and classes of different sizes.

    Args:
        alpha: Concentration of the Dirichlet distribution. A list has one number for each class, in their order.
        sizes: Training examples of each client: whole numbers, or fractions of all. null: equal sizes.
    """

    alpha: Amount | Annotated[list[Amount], Meta(min_length=1)] = 0.5
    sizes: Sizes | None = None

    needs: ClassVar[Needs] = "labels"

    def split(self, values: Values, num_partitions: int | None, rng: np.random.Generator) -> list[Indices]:
        check_classes(values, "an inner Dirichlet partition")
        if self.sizes is None:
            count = given_count(num_partitions)
            if count > len(values):
                raise DataError(
                    f"{len(values)} training examples are too few for {count} clients",
                    hint=f"lower clients.count (now {count})",
                )
            sizes = sizes_of(np.ones(count), len(values), at_least=1)
        else:
            sizes = given_sizes(self.sizes, len(values), num_partitions)
        classes, _, left = coded(values)
        draws = Draws(rng)
        mixtures = draws.dirichlet(np.tile(self._alpha(len(classes)), (len(sizes), 1)))
        return deal_classes(values, _counts(mixtures, sizes, left, draws), draws)

    def _alpha(self, num_classes: int) -> npt.NDArray[np.float64]:
        if not isinstance(self.alpha, list):
            return np.full(num_classes, self.alpha)
        if len(self.alpha) != num_classes:
            raise DataError(
                f"clients.data.partition.alpha has {len(self.alpha)} numbers, but there are {num_classes} classes",
                hint="give one number for each class, or one for all",
            )
        return np.array(self.alpha, np.float64)


def _counts(mixtures: npt.NDArray[np.float64], sizes: Counts, left: Counts, draws: Draws) -> Counts:
    """The number of examples of each class (row) that each client draws, of the ``left`` ones."""
    left = left.copy()
    num_clients, num_classes = mixtures.shape
    given: list[Counts] = []  # client and class of every example, as one number
    turns = draws.shuffled(np.repeat(np.arange(num_clients), sizes), num_clients)
    ends = _ends(mixtures, left)
    for block in np.array_split(turns, min(_BLOCKS, len(turns))):
        waiting, drawn = block, _drawn(ends, block, draws)
        for attempt in itertools.count():
            is_taken = _first_of_each(drawn, left)
            given.append(waiting[is_taken] * num_classes + drawn[is_taken])
            left -= np.bincount(drawn[is_taken], minlength=num_classes)
            waiting = waiting[~is_taken]
            if not len(waiting):
                break
            if attempt == 0 and len(waiting) > len(block) // 2:
                ends = _ends(mixtures, left)
            if attempt < _REDRAWS:  # to refuse classes that are used up is to draw from the shares of the others
                drawn = _drawn(ends, waiting, draws)
            else:
                clients, rows = np.unique(waiting, return_inverse=True)
                drawn = _drawn(_ends(mixtures[clients], left), rows, draws)
    counts = np.bincount(np.concatenate(given), minlength=num_clients * num_classes)
    return np.asarray(counts.reshape(num_clients, num_classes).T, np.int64)


def _ends(mixtures: npt.NDArray[np.float64], left: Counts) -> npt.NDArray[np.float64]:
    """Row after row: the row's number, plus the sums of its shares up to each class, of the classes that are left."""
    shares = np.where(left > 0, mixtures, 0.0)
    ends = np.cumsum(shares, axis=1)
    if (lost := ends[:, -1] == 0).any():  # a small alpha: all of the row's mass is on classes that are used up
        ends[lost] = np.cumsum(left)
    ends /= ends[:, -1:]
    ends += np.arange(len(ends))[:, None]
    return ends


def _drawn(ends: npt.NDArray[np.float64], rows: npt.NDArray[np.integer], draws: Draws) -> Counts:
    """A class for each entry of ``rows``, from the shares of that row."""
    num_classes = ends.shape[1]
    order = stable_order(rows, len(ends))
    found = np.empty(len(rows), np.int64)
    found[order] = np.searchsorted(ends.ravel(), rows[order] + draws.uniform(len(rows)), side="right")
    return np.asarray(np.minimum(found - rows * num_classes, num_classes - 1), np.int64)


def _first_of_each(drawn: Counts, left: Counts) -> npt.NDArray[np.bool_]:
    """Whether a draw is among the first ``left`` ones of its class."""
    wanted = np.bincount(drawn, minlength=len(left))
    is_taken = np.ones(len(drawn), np.bool_)
    for label in np.flatnonzero(wanted > left):
        is_taken[np.flatnonzero(drawn == label)[left[label] :]] = False
    return is_taken
