"""Asynchronous methods: who answers next, by the virtual clock, and how stale the answer is."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from fedpkg.strategies.base import Asks, Replies, Request, State, StepContext, StepResult
from fedpkg.strategies.requests import enough

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

    def answers(
        self, ctx: StepContext, number: int, request: Callable[[str, Weights], Request]
    ) -> Asks[list[tuple[Replies, int]]]:
        """The next ``number`` answers in virtual time, each with the version of the model that its client began from.

        Where none of them is usable, the next ones after them; who has failed begins nothing more in this round.

        Raises:
            AggregationError: as many clients have failed, one after the other, as train at a time.
        """
        failed: dict[str, Replies] = {}
        while True:
            coming = [self.next(ctx, failed) for _ in range(number)]
            found: tuple[Replies, ...] = yield [request(name, self.models[begun]) for name, begun in coming]
            if any(len(replies.missing) < len(replies.asked) for replies in found):
                return [(replies, begun) for replies, (_, begun) in zip(found, coming, strict=True)]
            failed.update((name, replies) for replies, (name, _) in zip(found, coming, strict=True))
            if len(failed) >= min(self.concurrency, len(ctx.clients)):
                enough(failed.values(), 1, by="of as many as train at a time")

    def next(self, ctx: StepContext, failed: Collection[str] = ()) -> tuple[str, int]:
        """The client that ends next, and the version that it began from; those who are idle begin before."""
        busy = {*self.running, *failed}
        idle = [client.client_id for client in ctx.clients if client.client_id not in busy]
        while idle and len(self.running) < self.concurrency:
            client_id = idle.pop(int(ctx.rng.integers(len(idle))))
            num_bytes, draw = self.models[self.version].num_bytes, float(ctx.rng.standard_normal())
            took = ctx.clock.duration(client_id, num_bytes=num_bytes, draw=draw)
            self.running[client_id] = (self.time + took, self.version)
        client_id = min(self.running, key=lambda name: (self.running[name][0], name))
        self.time, version = self.running.pop(client_id)
        return client_id, version

    def result(self, model: Weights) -> StepResult:
        """With the next global model: what is to be kept of the others, too."""
        begun = {version for _, version in self.running.values()}
        state: State = {
            "model": model,
            "version": self.version + 1,
            "time": self.time,
            "running": {name: list(how) for name, how in self.running.items()},
            "models": {str(version): self.models[version] for version in sorted(begun)},
        }
        return StepResult(state, time_s=self.time)


def staleness_factor(kind: Staleness, staleness: int, *, a: float, b: float) -> float:
    """s(tau): constant 1; polynomial (1 + tau)^-a; hinge 1 up to b, then 1 / (a (tau - b) + 1)."""
    if kind == "polynomial":
        return float((1 + staleness) ** -a)
    if kind == "hinge":
        return 1.0 if staleness <= b else 1 / (a * (staleness - b) + 1)
    return 1.0
