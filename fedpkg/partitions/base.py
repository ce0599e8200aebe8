"""The protocols of partitioners, and the arrays that they get and give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Indices: TypeAlias = npt.NDArray[np.int64]
Values: TypeAlias = npt.NDArray[Any]
Needs: TypeAlias = Literal["nothing", "labels", "ids", "values"]


class Partitioner(Protocol):
    """Divides examples among clients. Each client's indices are sorted, and no index goes to two clients.

    The attribute ``needs`` tells what the array ``values`` is, one entry per example (without it: labels):

    - ``labels``: the class, whole numbers or text;
    - ``ids``: to which user, device or domain the example belongs, whole numbers or text (the column ``by``);
    - ``values``: a number (the column ``by``);
    - ``nothing``: only the length of the array counts.

    Indices that no client gets are dropped; the caller counts and shows them. ``num_partitions`` is None if the
    configuration does not set the number of clients. Schemes that cannot tell it raise DataError then.

    Two methods are optional. Without ``split_test``, test examples are divided as the training examples were
    (`fedpkg.partitions.splitting`). With ``transform(features, client, num_partitions, rng)``, which returns
    an array of the same shape, the features of each client are changed after the split.
    """

    def split(self, values: Values, num_partitions: int | None, rng: np.random.Generator) -> list[Indices]:
        """Divide the training examples. Raises DataError if a client would get too few."""
        ...


class ColumnPartitioner(Protocol):
    """Divides the columns of a table among clients that all have the same examples (vertical federated learning)."""

    def split_columns(
        self, columns: Sequence[str], num_partitions: int | None, rng: np.random.Generator
    ) -> list[list[str]]:
        """The columns of each client, in the order of the table. A column may go to several clients, or to none."""
        ...
