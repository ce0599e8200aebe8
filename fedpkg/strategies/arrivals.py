"""Asynchronous methods: the clients that answer next, on a virtual clock or in real time, and their staleness."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from msgspec import Meta

from fedpkg.errors import AggregationError
from fedpkg.registry import Count, NotNegative
from fedpkg.strategies.base import Arrived, Asks, Replies, Request, State, StepContext, StepResult
from fedpkg.strategies.requests import enough
from fedpkg.strategies.traits import Traits

if TYPE_CHECKING:
    from fedpkg.weights.weights import Weights

# Parameters that asynchronous methods share, with their explanations.
Concurrency: TypeAlias = Annotated[
    Count,
    Meta(
        description="Number of clients that train at the same time. More clients give more answers in the same time, "
        "but staler ones."
    ),
]
Staleness: TypeAlias = Annotated[
    Literal["constant", "polynomial", "hinge"],
    Meta(
        description="How the weight s(tau) of an answer falls with its staleness tau, the number of steps that the "
        "server took since the client began."
    ),
]
Decay: TypeAlias = Annotated[
    NotNegative,
    Meta(
        description="Decay a of the weight with staleness, in `polynomial` and `hinge`. 0: all count in full. "
        "0.5 is usual for `polynomial`."
    ),
]
Patience: TypeAlias = Annotated[
    NotNegative, Meta(description="Staleness b, in steps of the server, up to which `hinge` gives the full weight.")
]
Clock: TypeAlias = Annotated[
    Literal["virtual", "wall"],
    Meta(
        description="`virtual`: the section `clock` of the run.yaml defines how long tasks take, and the bits of the "
        "result are the same on every machine. `wall`: answers count as they arrive, and a resumed round replays the "
        "recorded order."
    ),
]
Asked: TypeAlias = "Callable[[str, Weights], Request]"  # the request to a client for a model


OF_ARRIVALS = Traits(
    chooses_clients=True,
    heeds_required=False,
    treatment="step",
    in_trees="never",
    why_not_in_trees="its requests stay outstanding from round to round",
)


@dataclass
class Arrivals:
    """Clients that train at the same time, each from the current global model when it began.

    With the ``virtual`` clock, the client whose task ends first in virtual time answers next. With the ``wall`` clock
    it is the client whose answer arrives next; the controller records that order.

    ``running`` has for each client the virtual time at which it ends, and the version of the model it began from.
    """

    concurrency: int
    clock: Clock
    time: float
    version: int
    running: dict[str, tuple[float, int]]
    models: dict[int, Weights]

    @classmethod
    def of(cls, state: State, concurrency: int, clock: Clock = "virtual") -> Arrivals:
        running = {name: (ends, version) for name, (ends, version) in state.get("running", {}).items()}
        models = {int(version): model for version, model in state.get("models", {}).items()}
        version = state.get("version", 0)
        return cls(concurrency, clock, state.get("time", 0.0), version, running, models | {version: state["model"]})

    def answers(self, ctx: StepContext, number: int, request: Asked) -> Asks[list[tuple[Replies, int]]]:
        """The next ``number`` answers, each with the version of the model that its client began from.

        If none of them is usable, it takes the answers after them. Clients that failed begin no other task in this
        round. With the wall clock, answers must arrive within ``round.timeout_s``.

        Raises:
            AggregationError: ``concurrency`` clients have failed one after another, or none answered in time.
        """
        failed: dict[str, Replies] = {}
        while True:
            next_answers = self._in_time if self.clock == "wall" else self._in_virtual_time
            found = yield from next_answers(ctx, number, request, failed)
            if any(len(replies.missing) < len(replies.asked) for replies, _ in found):
                return found
            if not found:
                raise AggregationError(
                    "no client has answered within round.timeout_s",
                    hint="set round.timeout_s to more than the time that a client takes, then resume the session",
                )
            failed.update((replies.asked[0], replies) for replies, _ in found)
            if len(failed) >= min(self.concurrency, len(ctx.clients)):
                enough(failed.values(), 1, by="of the clients that train at the same time")

    def _in_virtual_time(
        self, ctx: StepContext, number: int, request: Asked, failed: Collection[str]
    ) -> Asks[list[tuple[Replies, int]]]:
        coming = [self._next(ctx, failed) for _ in range(number)]
        found: tuple[Replies, ...] = yield [request(name, self.models[begun]) for name, begun in coming]
        return [(replies, begun) for replies, (_, begun) in zip(found, coming, strict=True)]

    def _next(self, ctx: StepContext, failed: Collection[str]) -> tuple[str, int]:
        """The client that ends next, and the version that it began from. Idle clients begin first."""
        self._begin(ctx, failed)
        client_id = min(self.running, key=lambda name: (self.running[name][0], name))
        self.time, version = self.running.pop(client_id)
        return client_id, version

    def _in_time(
        self, ctx: StepContext, number: int, request: Asked, failed: Collection[str]
    ) -> Asks[list[tuple[Replies, int]]]:
        found: list[tuple[Replies, int]] = []
        while len(found) < number:
            missing = {name for replies, _ in found for name in replies.missing}
            if begun := self._begin(ctx, missing.union(failed)):
                yield [replace(request(name, self.models[self.version]), wait="nothing") for name in begun]
            arrived: tuple[Replies, ...] = yield Arrived()
            if not arrived:
                break
            found += [(replies, self.running.pop(replies.asked[0])[1]) for replies in arrived]
        return found

    def _begin(self, ctx: StepContext, failed: Collection[str]) -> list[str]:
        """Idle clients begin until ``concurrency`` clients train; those that began."""
        busy, begun = {*self.running, *failed}, []
        idle = [client.client_id for client in ctx.clients if client.client_id not in busy]
        while idle and len(self.running) < self.concurrency:
            client_id = idle.pop(int(ctx.rng.integers(len(idle))))
            num_bytes, draw = self.models[self.version].num_bytes, float(ctx.rng.standard_normal())
            took = ctx.clock.duration(client_id, num_bytes=num_bytes, draw=draw)
            self.running[client_id] = (self.time + took, self.version)
            begun.append(client_id)
        return begun

    def result(self, model: Weights) -> StepResult:
        """The result of the step with the next global model, and the models that clients still train from."""
        begun = {version for _, version in self.running.values()}
        state: State = {
            "model": model,
            "version": self.version + 1,
            "time": self.time,
            "running": {name: list(how) for name, how in self.running.items()},
            "models": {str(version): self.models[version] for version in sorted(begun)},
        }
        return StepResult(state, time_s=self.time if self.clock == "virtual" else None)


def staleness_factor(kind: Staleness, staleness: int, *, a: float, b: float) -> float:
    """s(tau): constant 1; polynomial (1 + tau)^-a; hinge 1 up to b, then 1 / (a (tau - b) + 1)."""
    if kind == "polynomial":
        return float((1 + staleness) ** -a)
    if kind == "hinge":
        return 1.0 if staleness <= b else 1 / (a * (staleness - b) + 1)
    return 1.0
