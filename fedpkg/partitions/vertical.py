"""Every client has all examples, and some of their columns (vertical federated learning)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from fedpkg.errors import DataError, nearest
from fedpkg.partitions.base import Needs
from fedpkg.partitions.draws import Draws
from fedpkg.partitions.schemes import scheme
from fedpkg.partitions.sizes import Sizes, given_sizes
from fedpkg.partitions.splitting import given_count, sizes_of


@scheme("vertical", equation="client k has x_i[C_k] for every example i")
@dataclass(frozen=True)
class VerticalPartitioner:
    """Vertical split: every client has all examples, and the columns (features) are divided among the clients.

    Columns are named as in the table or, in an array, by their numbers: "0", "1" … Each client has its columns in the
    order of the table.

    Args:
        sizes: Columns of each client: whole numbers, or fractions of the columns that are divided. Columns beyond their
            sum are dropped, and their number is shown. null: equal numbers.
        active: Columns of the active party, the one that knows the labels. null: none.
        active_party: Which client that is. `first` or `last`: this client gets them beside its share of the others.
            `first_alone` or `last_alone`: this client has no other columns. `all`: every client gets them.
        shared: Columns that every client has. null: none.
        drop: Columns that no client has. null: none.
        shuffle: Whether columns are drawn at random. Otherwise neighbours stay together.
    """

    sizes: Sizes | None = None
    active: list[str] | None = None
    active_party: Literal["first", "last", "first_alone", "last_alone", "all"] = "last"
    shared: list[str] | None = None
    drop: list[str] | None = None
    shuffle: bool = True

    needs: ClassVar[Needs] = "nothing"

    def split_columns(
        self, columns: Sequence[str], num_partitions: int | None, rng: np.random.Generator
    ) -> list[list[str]]:
        named = {"active": self.active or [], "shared": self.shared or [], "drop": self.drop or []}
        _check(named, columns)
        taken = {name for names in named.values() for name in names}
        divided = [name for name in columns if name not in taken]
        is_alone = bool(named["active"]) and self.active_party.endswith("_alone")
        sizes = self._sizes(len(divided), num_partitions, is_alone)
        if self.shuffle:
            divided = [divided[number] for number in Draws(rng).permutation(len(divided))]
        ends = np.cumsum(sizes)
        parts = [divided[end - size : end] for end, size in zip(ends, sizes, strict=True)]
        if is_alone:
            parts.insert(0 if self.active_party == "first_alone" else len(parts), [])
        active = {"first": parts[:1], "first_alone": parts[:1], "all": parts}.get(self.active_party, parts[-1:])
        for part in active:
            part.extend(named["active"])
        position = {name: number for number, name in enumerate(columns)}
        return [sorted([*part, *named["shared"]], key=position.__getitem__) for part in parts]

    def _sizes(self, number: int, num_partitions: int | None, is_alone: bool) -> list[int]:
        """How many of the divided columns each client gets, without the one that has the active columns alone."""
        if self.sizes is not None:
            count = None if num_partitions is None else num_partitions - is_alone
            return [int(size) for size in given_sizes(self.sizes, number, count)]
        count = given_count(num_partitions) - is_alone
        if number < count or not count:
            raise DataError(
                f"{number} columns cannot be divided among {count} clients",
                hint=f"lower clients.count to at most {number + is_alone}, or take columns out of partition.shared, "
                "partition.drop or partition.active",
            )
        return [int(size) for size in sizes_of(np.ones(count), number, at_least=1)]


def _check(named: Mapping[str, Sequence[str]], columns: Sequence[str]) -> None:
    for key, names in named.items():
        for name in names:
            if name not in columns:
                raise DataError(
                    f"partition.{key}: there is no column '{name}'{nearest(name, columns)}",
                    hint=f"the {len(columns)} columns: {_first(columns)}",
                )
    words = [name for names in named.values() for name in names]
    if twice := next((name for name in words if words.count(name) > 1), None):
        raise DataError(f"the column '{twice}' is named twice in partition.active, shared and drop")


def _first(columns: Iterable[str]) -> str:
    shown = list(columns)
    return ", ".join(shown[:8]) + (" …" if len(shown) > 8 else "")
