"""Clients are groups of users, devices or domains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from fedpkg.errors import DataError
from fedpkg.partitions.base import Indices, Needs, Values
from fedpkg.partitions.bounds import Count
from fedpkg.partitions.dealing import Counts, by_owner, check_ids
from fedpkg.partitions.draws import Draws
from fedpkg.partitions.schemes import scheme
from fedpkg.partitions.splitting import sizes_of


@scheme("grouped_ids", equation="client of example i = group of id_i")
@dataclass(frozen=True)
class GroupedIdsPartitioner:
    """Every client has the examples of several ids of the column `by`: silos, made of a dataset of many users.

    Test examples go to the client with their id; test examples of an id without training examples are dropped.

    Args:
        group_size: Ids of a client. null: all ids are divided among `clients.count` clients, as evenly as possible.
        mode: What becomes of ids that do not fill a group. `allow_smaller`: they are the last client. `allow_bigger`:
            the first clients get one more. `drop_remainder`: they are dropped, and the number of their examples is
            shown. `strict`: an error.
        order: Which ids are together. `random` draws the groups, `sorted` takes neighbours (numbers by size, text
            alphabetically).
    """

    group_size: Count | None = None
    mode: Literal["allow_smaller", "allow_bigger", "drop_remainder", "strict"] = "allow_smaller"
    order: Literal["random", "sorted"] = "random"

    needs: ClassVar[Needs] = "ids"
    tells_count: ClassVar[bool] = True

    def split(self, values: Values, num_partitions: int | None, rng: np.random.Generator) -> list[Indices]:
        ids, code = check_ids(values)
        sizes = self._sizes(len(ids), num_partitions)
        group_of = np.full(len(ids), -1, np.int64)
        order = Draws(rng).permutation(len(ids)) if self.order == "random" else np.arange(len(ids))
        group_of[order[: int(sizes.sum())]] = np.repeat(np.arange(len(sizes)), sizes)
        return by_owner(group_of[code], len(sizes))

    def _sizes(self, number: int, count: int | None) -> Counts:
        """The number of ids of each client."""
        if self.group_size is None:
            if count is None:
                raise DataError(
                    "neither the number of clients nor the size of a group is known",
                    hint="set clients.count or clients.data.partition.group_size",
                )
            if count > number:
                raise DataError(
                    f"the column has {number} different ids, too few for {count} clients", hint="lower clients.count"
                )
            return sizes_of(np.ones(count), number, at_least=1)
        groups, rest = divmod(number, self.group_size)
        sizes = np.full(groups, self.group_size, np.int64)
        if rest and self.mode == "strict":
            raise DataError(
                f"{number} ids cannot be divided into groups of {self.group_size}: {rest} are left over",
                hint="set partition.mode to allow_smaller, allow_bigger or drop_remainder, or change group_size",
            )
        if rest and self.mode == "allow_smaller":
            sizes = np.append(sizes, rest)
        elif not groups:
            raise DataError(
                f"the column has {number} different ids, too few for a group of {self.group_size}",
                hint=f"lower partition.group_size to at most {number}, or set partition.mode to allow_smaller",
            )
        elif rest and self.mode == "allow_bigger":
            sizes = sizes + rest // groups + (np.arange(groups) < rest % groups)
        if count is not None and count > len(sizes):
            raise DataError(
                f"{number} ids in groups of {self.group_size} make {len(sizes)} clients, but clients.count is {count}",
                hint="lower clients.count or partition.group_size",
            )
        return sizes[:count]
