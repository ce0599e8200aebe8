"""The protocol of a strategy: ask and tell over plain state, and what passes between them.

A strategy keeps nothing in itself. Its state is data (named `Weights`, numbers, text, lists and dicts of them) that the
controller saves after every step, so every method resumes. The state's ``"model"`` is the global model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from fedpkg.types import Json, ReplyKind

if TYPE_CHECKING:  # to list strategies must not cost PyTorch
    import numpy as np

    from fedpkg.weights.weights import Weights

State: TypeAlias = "dict[str, Any]"


@dataclass(frozen=True)
class Request:
    """A question to clients: run this entry point on this payload, and send that kind of reply.

    Args:
        request_id: unique within the session.
        payload: the weights that are staged as the input model; or several named sets of them, in one file.
        clients: who is asked, in cohort order; None: the session's sampler chooses.
        entry_point: of the compute package.
        reply_kind: what is expected back: ``update`` (it fits the payload, or the global model if that is several
            sets), or ``sets``.
        sets: that a reply of kind ``sets`` holds, and what each must fit; None: the payload's parameters (of several
            sets: the global model's).
        parameters: travel in task.json and in the input's metadata (e.g. ``proximal_mu``).
    """

    request_id: str
    payload: Weights | Mapping[str, Weights]
    clients: tuple[str, ...] | None = None
    entry_point: str = "train"
    reply_kind: ReplyKind = ReplyKind.UPDATE
    sets: Mapping[str, Weights | None] = field(default_factory=dict)
    parameters: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """One client's checked answer: it is as asked, and finite. Its weights are mapped: copy what you keep.

    ``sets`` are those that were asked for, in that order; an update is one set without a name, ``weights``.
    """

    request_id: str
    position: int  # in the cohort; replies come in this order, with gaps where clients failed
    client_id: str
    sets: Mapping[str, Weights]
    num_examples: float
    metadata: Mapping[str, Json] = field(default_factory=dict)

    @property
    def weights(self) -> Weights:
        return self.sets[""]


class Strategy(Protocol):
    """What is asked of the clients, and what is made of their replies."""

    def init(self, seed_model: Weights) -> State:
        """The state before the first step."""
        ...

    def ask(self, state: State, rng: np.random.Generator) -> tuple[State, list[Request]]:
        """The next requests. ``rng`` is keyed by (session seed, step), so a repeated step asks the same."""
        ...

    def tell(self, state: State, replies: Iterator[Reply]) -> State:
        """The state after the step. ``replies`` may block until the next client has answered.

        Raises:
            AggregationError: nothing sensible can be made of the replies.
        """
        ...
