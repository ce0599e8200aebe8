"""Learning rates of the server that change with its steps: factors of the rate, by the number of the step (from 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedpkg.registry import Count, CountOrZero, FromZeroToOne, Positive, Share
from fedpkg.strategies.registry import register_schedule


@register_schedule("steps", equation="gamma^floor((t - 1) / every)")
@dataclass(frozen=True)
class Steps:
    """A factor more after every so many steps, as torch.optim.lr_scheduler.StepLR."""

    every: Count
    gamma: Positive = 0.1
    warmup: CountOrZero = 0

    def factor(self, step: int) -> float:
        return _warm(step, self.warmup) * self.gamma ** ((step - 1) // self.every)


@register_schedule("exponential", equation="gamma^(t - 1)")
@dataclass(frozen=True)
class Exponential:
    """The same factor at every step, as torch.optim.lr_scheduler.ExponentialLR."""

    gamma: Share = 0.99
    warmup: CountOrZero = 0

    def factor(self, step: int) -> float:
        return _warm(step, self.warmup) * self.gamma ** (step - 1)


@register_schedule("polynomial", equation="final + (1 - final) (1 - (t - 1) / rounds)^power")
@dataclass(frozen=True)
class Polynomial:
    """Down to `final` over so many rounds (linear with power 1), as torch.optim.lr_scheduler.PolynomialLR."""

    rounds: Count
    power: Positive = 1.0
    final: FromZeroToOne = 0.0
    warmup: CountOrZero = 0

    def factor(self, step: int) -> float:
        left = math.pow(1 - _done(step, self.rounds), self.power)
        return _warm(step, self.warmup) * (self.final + (1 - self.final) * left)


@register_schedule("cosine", equation="final + (1 - final) (1 + cos(pi (t - 1) / rounds)) / 2")
@dataclass(frozen=True)
class Cosine:
    """Down to `final` over so many rounds along a cosine, as torch.optim.lr_scheduler.CosineAnnealingLR; it stays."""

    rounds: Count
    final: FromZeroToOne = 0.0
    warmup: CountOrZero = 0

    def factor(self, step: int) -> float:
        left = (1 + math.cos(math.pi * _done(step, self.rounds))) / 2
        return _warm(step, self.warmup) * (self.final + (1 - self.final) * left)


def _done(step: int, rounds: int) -> float:
    return min(step - 1, rounds) / rounds


def _warm(step: int, warmup: int) -> float:
    """A linear start: 1/(n + 1) … n/(n + 1) of the first n steps."""
    return min(1.0, step / (warmup + 1))
