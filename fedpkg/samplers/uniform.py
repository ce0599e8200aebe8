"""Every client has the same chance to be asked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING

from fedpkg.errors import ConfigError
from fedpkg.samplers.base import Sample

if TYPE_CHECKING:
    import numpy as np


class UniformSampler:
    """Draw a share of the clients uniformly, without replacement.

    Of N clients, target = min(N, max(min_clients, round(fraction_train N), 1)), halves rounded up, and
    asked = min(N, ceil(target (1 + over_selection))); both with the decimals as they were written, so that
    10 (1 + 0.1) is 11 and not, as in binary, a little more.

    Where all are asked, nothing is drawn: ``rng`` is left as it was.
    """

    def __init__(self, fraction_train: float = 1.0, *, min_clients: int = 1, over_selection: float = 0.0) -> None:
        self.fraction_train = fraction_train
        self.min_clients = min_clients
        self.over_selection = over_selection

    def sample(self, clients: Sequence[str], rng: np.random.Generator) -> Sample:
        """Raises ConfigError when there are fewer than ``min_clients`` clients."""
        total = len(clients)
        if total < max(self.min_clients, 1):
            raise ConfigError(
                f"sampler: min_clients is {self.min_clients}, but there are {total} clients",
                hint=f"set sampler.min_clients to at most {total}" if total else "add clients",
                min_clients=self.min_clients,
                clients=total,
            )
        share = (_exact(self.fraction_train) * total).to_integral_value(ROUND_HALF_UP)
        target = min(total, max(self.min_clients, int(share), 1))
        asked = min(total, math.ceil(target * (1 + _exact(self.over_selection))))
        if asked == total:
            return Sample(tuple(clients), target)
        chosen = rng.choice(total, size=asked, replace=False, shuffle=False)
        chosen.sort()
        return Sample(tuple(clients[i] for i in chosen), target)


def _exact(number: float) -> Decimal:
    return Decimal(repr(float(number)))
