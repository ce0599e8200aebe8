"""Every user, device or domain in the data is a client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedpkg.errors import DataError
from fedpkg.partitions.base import Indices, Needs, Values
from fedpkg.partitions.dealing import by_owner, check_ids
from fedpkg.partitions.schemes import scheme


@scheme(
    "natural_id",
    aliases=("domain",),
    equation="client of example i = id_i",
    paper="Caldas et al. 2018, LEAF: A Benchmark for Federated Settings, arXiv:1812.01097",
)
@dataclass(frozen=True)
class NaturalIdPartitioner:
    """Every id in the column `by` is a client: the user who wrote a text, or the domain that an image is from.

    Clients are the ids in their order (numbers by size, text alphabetically). With `clients.count`, only the first ids
    become clients; examples of the others are dropped, and their number is shown. Test examples go to the client with
    their id; test examples of an id without training examples are dropped. Nothing is drawn.
    """

    needs: ClassVar[Needs] = "ids"
    tells_count: ClassVar[bool] = True

    def split(self, values: Values, num_partitions: int | None, rng: np.random.Generator) -> list[Indices]:
        ids, owner = check_ids(values)
        count = len(ids) if num_partitions is None else num_partitions
        if count > len(ids):
            raise DataError(
                f"the column has {len(ids)} different ids, but clients.count is {count}",
                hint=f"lower clients.count to at most {len(ids)}, or remove it: then every id is a client",
            )
        return by_owner(np.where(owner < count, owner, -1) if count < len(ids) else owner, count)
