"""Strategies that fail after their replies have come."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np

from fedpkg.strategies.base import Reply, Request, State
from fedpkg.strategies.traits import Traits
from fedpkg.weights.weights import Weights


class Raising:
    traits = Traits()

    def init(self, seed_model: Weights) -> State:
        return {"model": seed_model}

    def ask(self, state: State, rng: np.random.Generator) -> tuple[State, list[Request]]:
        return state, [Request(payload=state["model"])]

    def tell(self, state: State, replies: Iterator[Reply]) -> State:
        return {"model": self.made(next(replies).weights)}

    def made(self, model: Weights) -> Weights:
        raise ValueError("expected more")


class NotFinite(Raising):
    def made(self, model: Weights) -> Weights:
        return Weights({name: model[name] * float("nan") for name in model})


class Exiting(Raising):
    def made(self, model: Weights) -> Weights:
        sys.exit(3)


class NotSaved(Raising):
    def tell(self, state: State, replies: Iterator[Reply]) -> State:
        return {"model": next(replies).weights, "seen": [{1, 2}]}
