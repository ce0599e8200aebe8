"""Clients with quadratic losses, and a controller in a few lines that takes a method's steps with them in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from cohorts import Answers

from fedpkg.strategies.base import (
    Client,
    CombinerResult,
    Reply,
    Request,
    State,
    StepContext,
    SteppingStrategy,
    StepResult,
)
from fedpkg.strategies.virtual_clock import VirtualClock
from fedpkg.types import ReplyKind
from fedpkg.weights.weights import Weights

Vector = np.ndarray[Any, np.dtype[np.float64]]


def weights(x: Vector) -> Weights:
    return Weights({"x": torch.from_numpy(np.array(x))})


def vector(model: Weights) -> Vector:
    return model["x"].numpy()


@dataclass
class Quadratic:
    """f(x) = x'A x / 2 - b'x."""

    a: Vector
    b: Vector

    def gradient(self, x: Vector) -> Vector:
        return self.a @ x - self.b

    def loss(self, x: Vector) -> float:
        return float(x @ self.a @ x / 2 - self.b @ x)

    def prox(self, center: Vector, linear: Vector, theta: float) -> Vector:
        """argmin_y <linear, y> + |y - center|^2 / (2 theta) + f(y)."""
        return np.linalg.solve(self.a + np.eye(len(self.b)) / theta, self.b + center / theta - linear)

    @property
    def solution(self) -> Vector:
        return np.linalg.solve(self.a, self.b)


def mean(losses: Sequence[Quadratic]) -> Quadratic:
    return Quadratic(np.mean([loss.a for loss in losses], axis=0), np.mean([loss.b for loss in losses], axis=0))


@dataclass
class Federation:
    """Clients by name, each with its losses by part ("" is all of its data); what they were called for is counted."""

    losses: Mapping[str, Mapping[str, Quadratic]]
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    train: Callable[[str, Request], Mapping[str, Vector]] | None = None
    calls: Counter[str] = field(default_factory=Counter)
    clock: VirtualClock = field(default_factory=VirtualClock)
    combiners: dict[str, CombinerResult] = field(default_factory=dict)  # of the last step

    def step(self, strategy: SteppingStrategy, state: State, number: int) -> State:
        rng = np.random.default_rng(number)
        clients = tuple(
            Client(name, tuple(group for group, members in self.groups.items() if name in members))
            for name in self.losses
        )
        step = strategy.step(state, StepContext(number, rng, clients, lambda: tuple(self.losses), clock=self.clock))
        try:
            asks = next(step)
            while True:
                if isinstance(asks, Request):
                    asks = step.send(self._answers(asks))
                else:
                    asks = step.send(tuple(self._answers(request) for request in asks))
        except StopIteration as stop:
            result = StepResult.of(stop.value)
            self.combiners = {one.path: one for one in result.combiners}
            return dict(result.state)

    def _answers(self, request: Request) -> Answers:
        self.calls[request.group or "clients"] += 1
        cohort = request.clients or self.groups.get(request.group or "") or tuple(self.losses)
        return Answers(request, [self._reply(request, k, name) for k, name in enumerate(cohort)])

    def _reply(self, request: Request, position: int, name: str) -> Reply:
        loss = self.losses[name][str(request.parameters.get("part", ""))]
        given = request.payload if not isinstance(request.payload, Weights) else {"": request.payload}
        points = {key: vector(point) for key, point in given.items()}
        metrics = None
        if request.entry_point == "gradient":
            sets = {key: loss.gradient(point) for key, point in points.items()}
        elif request.entry_point == "prox":
            theta = request.parameters["theta"]
            assert isinstance(theta, float)
            sets = {"": loss.prox(points["center"], points["linear"], theta)}
        elif request.reply_kind is ReplyKind.METRICS:
            sets, metrics = {}, {"loss": loss.loss(points[""])}
        else:
            assert self.train is not None
            sets = dict(self.train(name, request))
        return Reply("", position, name, {key: weights(x) for key, x in sets.items()}, 1.0, {}, metrics)  # type: ignore[arg-type]
