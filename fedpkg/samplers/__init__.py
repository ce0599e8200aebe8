"""Samplers: they choose the clients of a round."""

from fedpkg.samplers.registry import make_sampler, register_sampler, resolve_sampler
from fedpkg.types import Scheme

__all__ = ["Scheme", "make_sampler", "register_sampler", "resolve_sampler"]
