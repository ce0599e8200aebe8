"""Clients differ in their labels: the smaller alpha, the fewer classes a client has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt

from fedpkg.errors import DataError
from fedpkg.partitions.base import Indices, Needs, Values
from fedpkg.partitions.bounds import Amount, Meta, MinExamples
from fedpkg.partitions.dealing import check_classes, coded, counts_of, deal_classes
from fedpkg.partitions.draws import Draws
from fedpkg.partitions.schemes import scheme
from fedpkg.partitions.splitting import given_count, seen_by_class

_ATTEMPTS = 100


@scheme(
    "dirichlet",
    equation="p_c ~ Dir_K(alpha),  n_kc = p_ck n_c",
    paper="Yurochkin et al. 2019, Bayesian Nonparametric Federated Learning of Neural Networks, arXiv:1905.12022",
)
@dataclass(frozen=True)
class DirichletPartitioner:
    """Dirichlet label skew: each class c is divided among the K clients in proportions p_c ~ Dir_K(alpha).

    alpha → ∞ gives every client the same share of every class; alpha → 0 gives each class to one client. Proportions
    are drawn again, up to 100 times, until every client has ``min_examples``. The idea is from Hsu, Qi, Brown,
    "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification", arXiv:1909.06335,
    who draw per client (`inner_dirichlet`); the draw per class is from Yurochkin et al. Test examples are divided in
    the same proportions.

    Args:
        alpha: Concentration of the Dirichlet distribution: the smaller it is, the more the labels differ. A list has
            one number for each client: a larger one means a larger share of every class.
        self_balancing: Clients that have the average number of examples already get no more of the next classes.
    """

    alpha: Amount | Annotated[list[Amount], Meta(min_length=1)] = 0.5
    min_examples: MinExamples = 1
    self_balancing: bool = False

    needs: ClassVar[Needs] = "labels"

    def split(self, values: Values, num_partitions: int | None, rng: np.random.Generator) -> list[Indices]:
        count = given_count(num_partitions)
        check_classes(values, "a Dirichlet partition")
        alpha = self._alpha(count)
        classes, _, sizes = coded(values)
        draws, most = Draws(rng), 0
        for _attempt in range(_ATTEMPTS):
            proportions = draws.dirichlet(np.tile(alpha, (len(classes), 1)))
            counts = _balanced(proportions, sizes) if self.self_balancing else counts_of(proportions, sizes)
            if (least := int(counts.sum(axis=0).min())) >= self.min_examples:
                return deal_classes(values, counts, draws)
            most = max(most, least)
        raise DataError(
            f"no Dirichlet partition with alpha {self._told()} of {len(values)} training examples gave each of {count} "
            f"clients at least {self.min_examples} (tried {_ATTEMPTS} times; the best gave the smallest client {most})",
            hint=f"raise partition.alpha (now {self._told()}), or lower clients.count (now {count}) or "
            f"partition.min_examples (now {self.min_examples}; with equal shares {len(values) // count} is possible)",
        )

    def split_test(
        self, values: Values, rng: np.random.Generator, *, train_values: Values, train: list[Indices]
    ) -> list[Indices]:
        """Divide each class in the proportions of its training examples; a class without any, evenly."""
        classes, _, sizes = coded(values)
        shares, is_known = seen_by_class(classes, train_values, train)
        shares[~is_known] = 1
        return deal_classes(values, counts_of(shares / shares.sum(axis=1, keepdims=True), sizes), Draws(rng))

    def _alpha(self, count: int) -> npt.NDArray[np.float64]:
        if not isinstance(self.alpha, list):
            return np.full(count, self.alpha)
        if len(self.alpha) != count:
            raise DataError(
                f"clients.data.partition.alpha has {len(self.alpha)} numbers for {count} clients",
                hint="give one number for each client, or one for all",
            )
        return np.array(self.alpha, np.float64)

    def _told(self) -> str:
        return f"{self.alpha:g}" if not isinstance(self.alpha, list) else f"{min(self.alpha):g} … {max(self.alpha):g}"


def _balanced(proportions: npt.NDArray[np.float64], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Counts (classes x clients), class after class; a client at the average gets nothing of the next ones."""
    average = sizes.sum() / proportions.shape[1]
    counts, given = np.zeros(proportions.shape, np.int64), np.zeros(proportions.shape[1], np.int64)
    for number, shares in enumerate(proportions):
        has_room = given < average
        shares = np.where(has_room, shares, 0)
        shares = shares if shares.sum() > 0 else has_room.astype(np.float64)  # all of the mass was on full clients
        counts[number] = counts_of((shares / shares.sum())[None], sizes[number : number + 1])[0]
        given += counts[number]
    return counts
