"""Held-out clients: they never train, and measure the model on clients that it has not seen."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from fedpkg.errors import ConfigError, nearest
from fedpkg.rules import CURRENT
from fedpkg.shares import share_of

if TYPE_CHECKING:
    import numpy as np

HeldOut: TypeAlias = "int | float | list[str] | None"


def held_out_clients(
    which: HeldOut, client_ids: Sequence[str], rng: np.random.Generator, *, rules: int = CURRENT
) -> frozenset[str]:
    """A number of clients, a share of them (at least one; both drawn), or those that match patterns.

    Rules of computation below 2 counted a share in binary, with halves to the even number.

    Raises:
        ConfigError: a pattern matches no client, or no client is left to train.
    """
    if which is None:
        return frozenset()
    if isinstance(which, list):
        found = set()
        for pattern in which:
            names = fnmatch.filter(client_ids, pattern)
            if not names:
                raise ConfigError(
                    f"sampler.held_out: no client matches {pattern!r}{nearest(pattern, client_ids)}",
                    hint=f"there are {len(client_ids)}: {', '.join(client_ids[:5])}{' …' * (len(client_ids) > 5)}",
                    key="sampler.held_out",
                )
            found.update(names)
    else:
        total = len(client_ids)
        number = which if isinstance(which, int) else share_of(which, total) if rules >= 2 else round(which * total)
        number = min(max(1, number), total)
        found = {client_ids[i] for i in rng.choice(len(client_ids), size=number, replace=False)}
    if len(found) == len(client_ids):
        raise ConfigError(
            f"sampler.held_out: all {len(client_ids)} clients are held out, and none is left to train",
            hint="hold out fewer clients",
            key="sampler.held_out",
        )
    return frozenset(found)
