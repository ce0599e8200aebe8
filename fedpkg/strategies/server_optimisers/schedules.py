"""Schedules of the server's learning rate: factors that depend on the number of the step, from 1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, TypeAlias

from msgspec import Meta

from fedpkg.registry import Count, CountOrZero, FromZeroToOne, Positive, Share
from fedpkg.strategies.registry import register_schedule

Warmup: TypeAlias = Annotated[
    CountOrZero,
    Meta(description="Number n of first steps in which the rate rises linearly to its full value. 0: no warm-up."),
]
Rounds: TypeAlias = Annotated[
    Count,
    Meta(description="Number of rounds until the rate is at `final`, usually all of the run. It then stays there."),
]
Final: TypeAlias = Annotated[
    FromZeroToOne, Meta(description="Factor of the learning rate at the end. With 0 the server stops learning there.")
]


@register_schedule("steps", equation="gamma^floor((t - 1) / every)")
@dataclass(frozen=True)
class Steps:
    """Multiply the rate by gamma after every few steps, as torch.optim.lr_scheduler.StepLR.

    Args:
        every: Number of steps between two changes of the rate.
        gamma: Factor of each change. Above 1 the rate grows.
    """

    every: Count
    gamma: Positive = 0.1
    warmup: Warmup = 0

    def factor(self, step: int) -> float:
        return _warm(step, self.warmup) * self.gamma ** ((step - 1) // self.every)


@register_schedule("exponential", equation="gamma^(t - 1)")
@dataclass(frozen=True)
class Exponential:
    """Multiply the rate by gamma after every step, as torch.optim.lr_scheduler.ExponentialLR.

    Args:
        gamma: Factor of each step: 0.99 halves the rate in 69 steps. 1: the rate is constant.
    """

    gamma: Share = 0.99
    warmup: Warmup = 0

    def factor(self, step: int) -> float:
        return _warm(step, self.warmup) * self.gamma ** (step - 1)


@register_schedule("polynomial", equation="final + (1 - final) (1 - (t - 1) / rounds)^power")
@dataclass(frozen=True)
class Polynomial:
    """Lower the rate to `final` by a power of the rounds left, as torch.optim.lr_scheduler.PolynomialLR.

    Args:
        power: Exponent of the share of rounds that is left. 1: the rate falls linearly; above 1, faster at first.
    """

    rounds: Rounds
    power: Positive = 1.0
    final: Final = 0.0
    warmup: Warmup = 0

    def factor(self, step: int) -> float:
        left = math.pow(1 - _done(step, self.rounds), self.power)
        return _warm(step, self.warmup) * (self.final + (1 - self.final) * left)


@register_schedule("cosine", equation="final + (1 - final) (1 + cos(pi (t - 1) / rounds)) / 2")
@dataclass(frozen=True)
class Cosine:
    """Lower the rate to `final` along half a cosine, as torch.optim.lr_scheduler.CosineAnnealingLR."""

    rounds: Rounds
    final: Final = 0.0
    warmup: Warmup = 0

    def factor(self, step: int) -> float:
        left = (1 + math.cos(math.pi * _done(step, self.rounds))) / 2
        return _warm(step, self.warmup) * (self.final + (1 - self.final) * left)


def _done(step: int, rounds: int) -> float:
    return min(step - 1, rounds) / rounds


def _warm(step: int, warmup: int) -> float:
    """The factor of the warm-up: 1 / (n + 1), ..., n / (n + 1) in the first n steps."""
    return min(1.0, step / (warmup + 1))
