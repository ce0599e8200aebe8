"""Examples are sorted by label and cut into shards, of which each client gets a few at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedpkg.errors import DataError
from fedpkg.partitions.base import Indices, Needs, Values
from fedpkg.partitions.bounds import Count
from fedpkg.partitions.dealing import Counts, by_owner, check_classes, coded, stable_order
from fedpkg.partitions.draws import Draws
from fedpkg.partitions.schemes import scheme
from fedpkg.partitions.splitting import given_count, sizes_of


@scheme(
    "shards",
    equation="sort by label, cut into K s shards, deal s shards to each client",
    paper="McMahan et al. 2017, Communication-Efficient Learning of Deep Networks from Decentralized Data, "
    "arXiv:1602.05629",
)
@dataclass(frozen=True)
class ShardsPartitioner:
    """Shards: examples are sorted by label and cut into shards, which are dealt to the clients at random.

    With two shards of one class each, most clients have two classes (the non-IID MNIST of McMahan et al., who have
    100 clients with 2 shards of 300 examples). Examples of one class keep their order in the dataset.

    Args:
        shards_per_client: Shards of each client. null: 2, or with `shard_size` as many as there are, dealt evenly.
        shard_size: Examples in a shard. null: all examples are used, and sizes of shards differ by at most one.
        keep_incomplete: With `shard_size`, the examples that are left over form a smaller last shard; otherwise they
            are dropped, and their number is shown.
    """

    shards_per_client: Count | None = None
    shard_size: Count | None = None
    keep_incomplete: bool = True

    needs: ClassVar[Needs] = "labels"

    def split(self, values: Values, num_partitions: int | None, rng: np.random.Generator) -> list[Indices]:
        count = given_count(num_partitions)
        check_classes(values, "a partition into shards")
        sizes = self._sizes(len(values), count)
        draws = Draws(rng)
        clients = np.empty(len(sizes), np.int32)
        clients[draws.permutation(len(sizes))] = np.arange(len(sizes), dtype=np.int32) % count
        owner = np.full(len(values), -1, np.int32)
        classes, codes, _ = coded(values)
        order = stable_order(codes, len(classes))
        owner[order[: int(sizes.sum())]] = np.repeat(clients, sizes)
        return by_owner(owner, count)

    def _sizes(self, total: int, count: int) -> Counts:
        """The sizes of the shards, in the order of the labels."""
        if self.shard_size is None:
            number = count * (self.shards_per_client or 2)
            if number > total:
                raise DataError(
                    f"{total} training examples are too few for {number} shards ({count} clients with "
                    f"{self.shards_per_client or 2} each)",
                    hint=f"lower clients.count (now {count}) or partition.shards_per_client",
                )
            return sizes_of(np.ones(number), total, at_least=1)
        number, rest = divmod(total, self.shard_size)
        sizes = np.full(number, self.shard_size, np.int64)
        if rest and self.keep_incomplete:
            sizes = np.append(sizes, rest)
        wanted = count * (self.shards_per_client or 1)
        if len(sizes) < wanted:
            raise DataError(
                f"{total} training examples make {len(sizes)} shards of {self.shard_size}, but {count} clients need "
                f"{wanted}",
                hint=f"lower clients.count (now {count}), partition.shard_size (now {self.shard_size}) or "
                "partition.shards_per_client",
            )
        return sizes if self.shards_per_client is None else sizes[:wanted]
