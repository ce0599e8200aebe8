"""Strategies: requests to the clients, and what is computed from their replies."""

from fedpkg.strategies.base import StepResult
from fedpkg.strategies.registry import (
    make_strategy,
    register_aggregator,
    register_schedule,
    register_server_optimiser,
    register_strategy,
    resolve_strategy,
)
from fedpkg.strategies.traits import Traits

__all__ = [
    "StepResult",
    "Traits",
    "make_strategy",
    "register_aggregator",
    "register_schedule",
    "register_server_optimiser",
    "register_strategy",
    "resolve_strategy",
]
