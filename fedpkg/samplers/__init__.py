"""Who is asked in a round."""

from __future__ import annotations

from fedpkg.config import SamplerConfig
from fedpkg.samplers.base import Sample, Sampler
from fedpkg.samplers.uniform import UniformSampler

__all__ = ["Sample", "Sampler", "UniformSampler", "make_sampler"]


def make_sampler(config: SamplerConfig) -> Sampler:
    """The sampler that a run configuration names."""
    return UniformSampler(config.fraction_train, min_clients=config.min_clients, over_selection=config.over_selection)
