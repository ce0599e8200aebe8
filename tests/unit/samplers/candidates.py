"""Clients for samplers, made by hand, and what makes a cohort of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedpkg.samplers import make_sampler
from fedpkg.samplers.base import Candidates, History, Sample

# The registered samplers, and of each, parameters that suit the clients here.
SECTIONS: Mapping[str, dict[str, Any]] = {
    "uniform": {},
    "weighted": {},
    "round_robin": {},
    "least_reused": {},
    "importance": {"explore": 0.2},
    "power_of_choice": {"candidates": 4},
    "poisson": {},
}


def names(count: int) -> tuple[str, ...]:
    return tuple(f"Ort {k}" for k in range(count))


def candidates(
    count: int,
    *,
    examples: Sequence[float | None] = (),
    asked: Sequence[int] = (),
    losses: Sequence[float | None] = (),
    groups: Mapping[str, Sequence[str]] | None = None,
) -> Candidates:
    ids = names(count)
    history = {
        ids[k]: History(
            times_asked=asked[k] if asked else 1,
            times_counted=1,
            metrics={} if not losses or losses[k] is None else {"loss": losses[k]},  # type: ignore[dict-item]
        )
        for k in range(count)
        if asked or losses
    }
    return Candidates(ids, 1, examples, groups or {}, lambda: history)


def sample(section: Mapping[str, Any], of: Candidates, seed: int = 0, **more: Any) -> Sample:
    return make_sampler(section).sample(of, np.random.default_rng(seed), **more)


def places(found: Sample, of: Candidates) -> list[int]:
    return [of.client_ids.index(name) for name in found.clients]
