"""Every client has examples of exactly k classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from fedpkg.errors import DataError
from fedpkg.partitions.base import Indices, Needs, Values
from fedpkg.partitions.bounds import Count, MinExamples
from fedpkg.partitions.dealing import Counts, check_classes, coded, deal_classes
from fedpkg.partitions.draws import Draws
from fedpkg.partitions.schemes import scheme
from fedpkg.partitions.splitting import given_count


@scheme(
    "pathological",
    aliases=("classes",),
    equation="n_kc = n_c / |{j : c in C_j}| for c in C_k,  |C_k| = k",
    paper="Li et al. 2022, Federated Learning on Non-IID Data Silos: An Experimental Study, arXiv:2102.02079",
)
@dataclass(frozen=True)
class PathologicalPartitioner:
    """Every client has exactly k classes, and each class is divided evenly among the clients that have it.

    A class that no client has is dropped, and the number of its examples is shown. Test examples are divided in the
    same proportions.

    Args:
        classes_per_client: The number k of classes of each client.
        assignment: `random` draws the classes of each client. `deterministic` gives client i the classes i, i + 1 …
            i + k - 1, from the first one again after the last. `first-deterministic` gives client i class i, and draws
            the others; so every class is used if there are as many clients.
    """

    classes_per_client: Count
    assignment: Literal["random", "deterministic", "first-deterministic"] = "random"
    min_examples: MinExamples = 1

    needs: ClassVar[Needs] = "labels"

    def split(self, values: Values, num_partitions: int | None, rng: np.random.Generator) -> list[Indices]:
        count = given_count(num_partitions)
        check_classes(values, "a pathological partition")
        classes, _, sizes = coded(values)
        if self.classes_per_client > len(classes):
            told = ", ".join(map(str, classes[:5])) + (" …" if len(classes) > 5 else "")
            raise DataError(
                f"{count} clients cannot have {self.classes_per_client} classes each: the labels have only "
                f"{len(classes)} ({told})",
                hint=f"lower partition.classes_per_client (now {self.classes_per_client}) to at most {len(classes)}",
            )
        draws = Draws(rng)
        counts = self._counts(classes, sizes, self._owners(count, len(classes), draws))
        if (least := int(counts.sum(axis=0).min())) < self.min_examples:
            raise DataError(
                f"a client would have {least} training examples, fewer than {self.min_examples}",
                hint=f"lower clients.count (now {count}) or partition.min_examples (now {self.min_examples})",
            )
        return deal_classes(values, counts, draws)

    def _owners(self, count: int, num_classes: int, draws: Draws) -> npt.NDArray[np.bool_]:
        """Which clients (columns) have which classes (rows)."""
        first = (np.arange(count) % num_classes)[:, None]
        if self.assignment == "deterministic":
            chosen = (first + np.arange(self.classes_per_client)) % num_classes
        else:
            ranks = draws.raw(count * num_classes).reshape(count, num_classes) | np.uint64(1)
            if self.assignment == "first-deterministic":
                np.put_along_axis(ranks, first, 0, axis=1)
            chosen = np.argsort(ranks, axis=1, kind="stable")[:, : self.classes_per_client]
        owners = np.zeros((num_classes, count), np.bool_)
        owners[chosen, np.arange(count)[:, None]] = True
        return owners

    def _counts(self, classes: Values, sizes: Counts, owners: npt.NDArray[np.bool_]) -> Counts:
        counts = np.zeros(owners.shape, np.int64)
        for label, size, row, has in zip(classes, sizes, counts, owners, strict=True):
            number = int(has.sum())
            if number > size:
                raise DataError(
                    f"class {label} has {size} training examples, too few for the {number} clients that are to have it",
                    hint=f"lower clients.count (now {owners.shape[1]}) or partition.classes_per_client (now "
                    f"{self.classes_per_client}); deterministic assignment gives each class to equally many clients",
                )
            if number:
                share, extra = divmod(int(size), number)
                row[has] = share + (np.arange(number) < extra)
        return counts
