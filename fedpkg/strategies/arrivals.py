"""Asynchronous methods: who answers next, by the virtual clock, and how stale the answer is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from fedpkg.strategies.base import State, StepContext

if TYPE_CHECKING:
    from fedpkg.weights.weights import Weights

Staleness: TypeAlias = Literal["constant", "polynomial", "hinge"]


@dataclass
class Arrivals:
    """Clients that train at the same time, each from the global model that there was when it began.

    ``running`` has for each client when it ends, and the version of the model that it began from.
    """

    concurrency: int
    time: float
    version: int
    running: dict[str, tuple[float, int]]
    models: dict[int, Weights]

    @classmethod
    def of(cls, state: State, concurrency: int) -> Arrivals:
        running = {name: (ends, version) for name, (ends, version) in state.get("running", {}).items()}
        models = {int(version): model for version, model in state.get("models", {}).items()}
        version = state.get("version", 0)
        return cls(concurrency, state.get("time", 0.0), version, running, models | {version: state["model"]})

    def next(self, ctx: StepContext) -> tuple[str, int]:
        """The client that ends next, and the version that it began from; those who are idle begin before."""
        idle = [client.client_id for client in ctx.clients if client.client_id not in self.running]
        while idle and len(self.running) < self.concurrency:
            client_id = idle.pop(int(ctx.rng.integers(len(idle))))
            num_bytes, draw = self.models[self.version].num_bytes, float(ctx.rng.standard_normal())
            took = ctx.clock.duration(client_id, num_bytes=num_bytes, draw=draw)
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
