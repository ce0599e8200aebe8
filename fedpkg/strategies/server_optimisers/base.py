"""The protocols of server optimisers and of the schedules of their learning rates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeAlias, runtime_checkable

from msgspec import Meta

from fedpkg.registry import BelowOne, NotNegative, Part, Positive

if TYPE_CHECKING:
    from fedpkg.strategies.base import State
    from fedpkg.weights.weights import Weights


# Parameters that several server optimisers share, with their explanations.
LearningRate: TypeAlias = Annotated[
    Positive,
    Meta(
        description="Step size eta of the server. A larger one learns faster, until training diverges: try powers of "
        "10 around the default."
    ),
]
FirstDecay: TypeAlias = Annotated[
    BelowOne,
    Meta(
        description="Decay b1 of the mean of past gradients in each step. The mean covers about 1 / (1 - b1) steps; 0 "
        "takes the last gradient alone."
    ),
]
SecondDecay: TypeAlias = Annotated[
    BelowOne,
    Meta(
        description="Decay b2 of the mean of squared gradients in each step. The mean covers about 1 / (1 - b2) steps: "
        "the closer to 1, the more slowly the step sizes adapt."
    ),
]
Adaptivity: TypeAlias = Annotated[
    Positive,
    Meta(
        description="Added to sqrt(v), in units of the weights. From 1e-4 to 1e-2 is usual: a larger value amplifies "
        "small gradients less, and a very large one makes the step that of plain gradient descent."
    ),
]
Epsilon: TypeAlias = Annotated[
    Positive, Meta(description="Added to sqrt(v) so that no division is by zero. It rarely needs another value.")
]
WeightDecay: TypeAlias = Annotated[
    NotNegative,
    Meta(description="Weight decay lambda, of all parameters. 0: none; 0.01 is usual."),
]
ScheduleName: TypeAlias = Annotated[
    Any,
    Part("schedule"),
    Meta(description="Changes the learning rate from round to round. null: the rate is constant."),
]


class ServerOptimiser(Protocol):
    """Takes a step from the global model towards the aggregate of a round."""

    def step(self, model: Weights, aggregate: Weights, memory: State) -> tuple[Weights, State]:
        """The next global model. ``memory`` (moments as `Weights`) comes from the last step.

        The gradient is ``model - aggregate`` of the parameters. Other tensors of the next model are the aggregate's.
        """
        ...


@runtime_checkable
class ParticularOptimiser(Protocol):
    """A server optimiser that cannot step every model, and checks it before the session starts."""

    def check(self, model: Weights) -> None:
        """Raises ConfigError: it cannot step a model with these shapes."""
        ...


class Schedule(Protocol):
    """A factor of the learning rate that changes from step to step."""

    def factor(self, step: int) -> float:
        """The factor in a step; steps are numbered from 1."""
        ...
