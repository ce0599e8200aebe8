"""The clock of asynchronous methods: who answers when follows from profiles of clients, not from this machine."""

from __future__ import annotations

import fnmatch
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from fedpkg.strategies.base import State, StepContext

if TYPE_CHECKING:
    from fedpkg.weights.weights import Weights

Staleness: TypeAlias = Literal["constant", "polynomial", "hinge"]


@dataclass(frozen=True)
class VirtualClock:
    """How long each client takes, in virtual seconds.

    A task takes ``seconds`` (of the first pattern that matches the client's id, else 1) * exp(``spread`` z_i +
    ``jitter`` z), with z_i ~ N(0, 1) fixed for each client and z ~ N(0, 1) drawn for each task, and the model's bytes
    take their time down and up at ``bytes_per_s``.
    """

    seconds: Mapping[str, float]
    spread: float = 0.0
    jitter: float = 0.0
    bytes_per_s: float | None = None

    def __post_init__(self) -> None:
        if not all(value > 0 for value in self.seconds.values()):
            raise ValueError("seconds must be above 0")

    def duration(self, client_id: str, model: Weights, draw: float) -> float:
        base = next((s for pattern, s in self.seconds.items() if fnmatch.fnmatchcase(client_id, pattern)), 1.0)
        travel = 0.0 if self.bytes_per_s is None else 2 * model.num_bytes / self.bytes_per_s
        return base * math.exp(self.spread * _own(client_id) + self.jitter * draw) + travel


def _own(client_id: str) -> float:
    """z_i, by the client's name."""
    import numpy as np

    return float(np.random.default_rng(list(hashlib.sha256(client_id.encode()).digest())).standard_normal())


@dataclass
class Arrivals:
    """Clients that train at the same time, each from the global model that there was when it began.

    ``running`` has for each client when it ends, and the version of the model that it began from.
    """

    clock: VirtualClock
    concurrency: int
    time: float
    version: int
    running: dict[str, tuple[float, int]]
    models: dict[int, Weights]

    @classmethod
    def of(cls, state: State, clock: VirtualClock, concurrency: int) -> Arrivals:
        running = {name: (ends, version) for name, (ends, version) in state.get("running", {}).items()}
        models = {int(version): model for version, model in state.get("models", {}).items()}
        version = state.get("version", 0)
        return cls(clock, concurrency, state.get("time", 0.0), version, running, models | {version: state["model"]})

    def next(self, ctx: StepContext) -> tuple[str, int]:
        """The client that ends next, and the version that it began from; those who are idle begin before."""
        idle = [client.client_id for client in ctx.clients if client.client_id not in self.running]
        while idle and len(self.running) < self.concurrency:
            client_id = idle.pop(int(ctx.rng.integers(len(idle))))
            took = self.clock.duration(client_id, self.models[self.version], float(ctx.rng.standard_normal()))
            self.running[client_id] = (self.time + took, self.version)
        client_id = min(self.running, key=lambda name: (self.running[name][0], name))
        self.time, version = self.running.pop(client_id)
        return client_id, version

    def state(self, model: Weights) -> State:
        """With the next global model: what is to be kept of the others, too."""
        begun = {version for _, version in self.running.values()}
        return {
            "model": model,
            "version": self.version + 1,
            "time": self.time,
            "running": {name: list(how) for name, how in self.running.items()},
            "models": {str(version): self.models[version] for version in sorted(begun)},
        }


def staleness_factor(kind: Staleness, staleness: int, *, a: float, b: float) -> float:
    """s(tau): constant 1; polynomial (1 + tau)^-a; hinge 1 up to b, then 1 / (a (tau - b) + 1)."""
    if kind == "polynomial":
        return float((1 + staleness) ** -a)
    if kind == "hinge":
        return 1.0 if staleness <= b else 1 / (a * (staleness - b) + 1)
    return 1.0
