"""The updates by which clusters are found, which then are the answers to the first requests of the clusters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from fedpkg.strategies.base import Replies, Reply, Request
from fedpkg.strategies.updates.held import Updates
from fedpkg.weights.weights import Weights

if TYPE_CHECKING:
    from fedpkg.types import Content
    from fedpkg.waist.answer import Failure


def compared_with(model: Weights, content: Content) -> Weights:
    """The model from which updates differ, given the one that their clients got: for differences, that is zero."""
    if content == "weights":
        return model
    zeros = {name: model[name].new_zeros(model[name].shape) for name in model.parameters}
    return Weights({**model, **zeros}, buffers=model.buffers)


class Held:
    """The replies to a request that all clients of a round got, which stay mapped.

    Raises:
        AggregationError: there are none.
    """

    def __init__(self, replies: Replies, request: Request) -> None:
        assert isinstance(request.payload, Weights)
        self.model = request.payload
        self.virtual_s = 0.0
        told: list[Reply] = []

        def noted() -> Iterator[Reply]:
            for reply in replies:
                told.append(replace(reply, sets={}))
                yield reply

        self.updates = Updates(noted(), compared_with(self.model, request.reply))
        self.virtual_s = replies.virtual_s
        self._content = request.reply
        self._replies = {
            reply.client_id: reply.with_weights(weights) for reply, weights in zip(told, self.updates.held, strict=True)
        }

    def __contains__(self, client_id: str) -> bool:
        return client_id in self._replies

    @property
    def num_examples(self) -> dict[str, float]:
        return {client_id: reply.num_examples for client_id, reply in self._replies.items()}

    def answer(self, request: Request, *, round_number: int) -> Answered:
        """What its clients would have answered to a request with another model: their differences from that model."""
        assert isinstance(request.payload, Weights) and request.clients is not None
        own, move = request.payload, None
        if self._content == "weights" and not own.equal(self.model):
            move = own
        found = [self._replies[client_id] for client_id in request.clients if client_id in self]
        replies = (
            replace(reply, request_id=request.request_id, position=position, sets={"": self._moved(reply, move)})
            for position, reply in enumerate(found)
        )
        return Answered(request, round_number, replies, tuple(reply.client_id for reply in found), self.virtual_s)

    def _moved(self, reply: Reply, model: Weights | None) -> Weights:
        """v + (w - u) of the parameters, where u is the model that the client got."""
        weights = reply.weights
        if model is None:
            return weights
        moved = {name: model[name] + (weights[name] - self.model[name]) for name in self.model.parameters}
        return Weights({**weights, **moved}, buffers=weights.buffers)


class Answered:
    """Replies that are there already (`fedpkg.strategies.base.Replies`)."""

    is_outstanding = False
    missing: tuple[str, ...] = ()
    failures: Mapping[str, Failure] = {}

    def __init__(
        self, request: Request, round_number: int, replies: Iterator[Reply], asked: tuple[str, ...], virtual_s: float
    ) -> None:
        self.request_id = request.request_id
        self.round_number = round_number
        self.asked = asked
        self.virtual_s = virtual_s
        self._replies = replies

    def __iter__(self) -> Iterator[Reply]:
        return self

    def __next__(self) -> Reply:
        return next(self._replies)
