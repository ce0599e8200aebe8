"""The protocols of server optimisers and of the schedules of their learning rates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from fedpkg.strategies.base import State
    from fedpkg.weights.weights import Weights


class ServerOptimiser(Protocol):
    """Takes the step from the global model that the aggregate of a round points to."""

    def step(self, model: Weights, aggregate: Weights, memory: State) -> tuple[Weights, State]:
        """The next global model. ``memory`` (moments, as `Weights`) is what the last step returned, at first empty.

        The gradient is ``model - aggregate``, of parameters; all other tensors of the next model are the aggregate's.
        """
        ...


@runtime_checkable
class ParticularOptimiser(Protocol):
    """A server optimiser that cannot step every model, and says so before the session starts."""

    def check(self, model: Weights) -> None:
        """Raises ConfigError: it cannot step a model of these shapes."""
        ...


class Schedule(Protocol):
    """A factor of the learning rate."""

    def factor(self, step: int) -> float:
        """Of this step, from 1."""
        ...
