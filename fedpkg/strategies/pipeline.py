"""Strategies by composition: ask everyone sampled to train, aggregate the updates, step the global model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fedpkg.strategies.base import Reply, Request, State
from fedpkg.weights.weights import Weights


class Aggregator(Protocol):
    """Makes one model out of the clients' updates."""

    def aggregate(self, replies: Iterator[Reply], template: Weights) -> Weights:
        """Fold replies, which come in cohort order.

        Raises:
            AggregationError: no replies, or no finite result.
        """
        ...


@dataclass(frozen=True)
class Pipeline:
    """A round: the sampled clients train the global model, and the aggregate of their updates replaces it."""

    aggregator: Aggregator

    def init(self, seed_model: Weights) -> State:
        return {"model": seed_model, "step": 0}

    def ask(self, state: State, rng: np.random.Generator) -> tuple[State, list[Request]]:
        step = state["step"] + 1
        return {**state, "step": step}, [Request(request_id=f"train-{step}", payload=state["model"])]

    def tell(self, state: State, replies: Iterator[Reply]) -> State:
        return {**state, "model": self.aggregator.aggregate(replies, state["model"])}
