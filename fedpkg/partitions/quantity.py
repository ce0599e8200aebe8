"""What schemes share in which only the numbers of examples differ between clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fedpkg.errors import DataError
from fedpkg.partitions.dealing import deal
from fedpkg.partitions.draws import Draws
from fedpkg.partitions.splitting import sizes_of

if TYPE_CHECKING:
    from fedpkg.partitions.base import Indices


def check_enough(total: int, count: int, min_examples: int) -> None:
    """Raises DataError: the examples are too few for the clients."""
    if total < count * min_examples:
        raise DataError(
            f"{total} training examples are too few to give each of {count} clients at least {min_examples}",
            hint=f"lower clients.count (now {count}) or partition.min_examples (now {min_examples})",
        )


def deal_by_weight(weights: npt.NDArray[np.float64], total: int, min_examples: int, draws: Draws) -> list[Indices]:
    """Examples chosen at random, in numbers that are proportional to the weights, but at least ``min_examples``.

    Raises:
        DataError: there are too few examples.
    """
    check_enough(total, len(weights), min_examples)
    sizes = sizes_of(weights, total, at_least=min_examples)
    return deal(sizes, draws.permutation(total), total)
