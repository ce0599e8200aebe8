"""Who is asked in a round."""

from fedpkg.samplers.registry import make_sampler, register_sampler, resolve_sampler

__all__ = ["make_sampler", "register_sampler", "resolve_sampler"]
