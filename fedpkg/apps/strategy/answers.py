"""Replies of nodes as fedpkg's strategies take them, each checked; one that cannot be used costs that reply only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fedpkg.apps.strategy.metrics import metrics_of, weight_in
from fedpkg.records.array import Array, frozen
from fedpkg.records.array_record import ArrayRecord

if TYPE_CHECKING:
    from fedpkg.apps.message import Message
    from fedpkg.strategies.base import Reply, Request
    from fedpkg.types import Use
    from fedpkg.weights.weights import Weights


@dataclass(frozen=True)
class Answer:
    """A usable message, and what fedpkg's strategies get of it. ``reply`` is None if its arrays do not matter."""

    message: Message
    reply: Reply | None = None
    converted: str = ""  # the first array whose precision was converted


@dataclass(frozen=True)
class LeftOut:
    """A message that cannot be used."""

    message: Message
    reason: str


class Answered:
    """The replies to one request, all of which have come (`fedpkg.strategies.base.Replies`)."""

    def __init__(self, request: Request, round_number: int, asked: Sequence[str], replies: Sequence[Reply]) -> None:
        self.request_id = request.request_id
        self.round_number = round_number
        self.is_outstanding = False
        self.asked = tuple(asked)
        self.missing = tuple(name for name in asked if name not in {reply.client_id for reply in replies})
        self._replies = iter(replies)

    def __iter__(self) -> Iterator[Reply]:
        return self

    def __next__(self) -> Reply:
        return next(self._replies)


def node_name(message: Message) -> str:
    """The client's id of a node that replied."""
    return str(message.metadata.src_node_id)


def to_weights(record: ArrayRecord) -> Weights:
    """The arrays as tensors; those of a large file are not copied. Buffers are recognised by the usual names."""
    from fedpkg.formats.buffers import usual_buffers
    from fedpkg.weights.weights import Weights

    return Weights(record.to_torch_state_dict(), buffers=usual_buffers(record))


def to_record(weights: Weights) -> ArrayRecord:
    """Tensors as arrays, which share their memory: it must not change any more."""
    from fedpkg.client import arrays

    plains = {name: arrays.plain(name, tensor) for name, tensor in weights.items()}
    for one in plains.values():
        frozen(one.values)
    return ArrayRecord({name: Array.from_plain(one) for name, one in plains.items()})


def array_record_of(message: Message, key: str) -> ArrayRecord | str:
    """The arrays of a reply, or why there are none to use: those under ``key``, or those of its only array record."""
    records = message.content.array_records
    if key in records:
        return records[key]
    if len(records) == 1:
        return next(iter(records.values()))
    names = ", ".join(map(repr, records))
    return f"it has {len(records)} array records ({names}), none of them {key!r}" if names else "it has no arrays"


def weighted(messages: Iterable[Message], weight_key: str) -> tuple[list[Answer], list[LeftOut]]:
    """The replies with metrics and a weight, and all others."""
    usable: list[Answer] = []
    left_out: list[LeftOut] = []
    for message in messages:
        reason = _error(message) or weight_in(metrics_of(message.content), weight_key)
        if isinstance(reason, str):
            left_out.append(LeftOut(message, reason))
        else:
            usable.append(Answer(message))
    return usable, left_out


def opened(
    messages: Sequence[Message], *, arrays_key: str, weight_key: str, model: Weights | None, needs_model: bool, use: Use
) -> tuple[list[Answer], list[LeftOut], Weights | None]:
    """The replies whose arrays and weights can be used, all others, and what the arrays of the former fit.

    That is the model that was sent. If no reply fits it, and the strategy does not need it, it is the first of those
    replies of which most have the same names and shapes: an app may send one thing and get another.
    """
    read = [_read(position, message, arrays_key, weight_key) for position, message in enumerate(messages)]
    replies = [(message, one) for message, one in zip(messages, read, strict=True) if not isinstance(one, str)]
    left_out = {
        id(message): LeftOut(message, one) for message, one in zip(messages, read, strict=True) if isinstance(one, str)
    }
    template = model
    fits_model = model is not None and any(_fitted(one, model)[1] == "" for _, one in replies)
    if replies and not fits_model and not (needs_model and model is not None):
        template = _usual([one.weights for _, one in replies])
    usable = []
    for message, reply in replies:
        assert template is not None
        answer, reason = _checked(message, reply, template, use)
        if answer is None:
            left_out[id(message)] = LeftOut(message, reason)
        else:
            usable.append(answer)
    return usable, [left_out[id(message)] for message in messages if id(message) in left_out], template


def _error(message: Message) -> str | None:
    return f"error {message.error.code}: {message.error.reason}" if message.has_error() else None


def _read(position: int, message: Message, arrays_key: str, weight_key: str) -> Reply | str:
    from fedpkg.strategies.base import Reply
    from fedpkg.weights.fold import MAX_WEIGHT, MIN_WEIGHT

    if (error := _error(message)) is not None:
        return error
    arrays, metrics = array_record_of(message, arrays_key), metrics_of(message.content)
    if isinstance(arrays, str):
        return arrays
    weight = weight_in(metrics, weight_key)
    if isinstance(weight, str):
        return weight
    if not MIN_WEIGHT <= weight <= MAX_WEIGHT:
        return f"{weight_key!r}, by which replies are weighted, is {weight:g}, which is out of range"
    try:
        weights = to_weights(arrays)
    except (TypeError, ValueError) as unreadable:
        return str(unreadable)
    return Reply("", position, node_name(message), {"": weights}, weight, metrics, metrics)


def _fitted(reply: Reply, template: Weights) -> tuple[Weights, str]:
    """The arrays in the dtypes and the order of the template; or why they do not fit."""
    came = reply.weights.in_dtypes_of(template)
    if reason := came.mismatch(template):
        return came, reason.replace("tensor", "array").replace("the global model has", "expected is")
    return came.reordered_like(template), ""


def _checked(message: Message, reply: Reply, template: Weights, use: Use) -> tuple[Answer | None, str]:
    from fedpkg.replies.numbers import check_numbers
    from fedpkg.waist.answer import Refused

    fitted, reason = _fitted(reply, template)
    if reason:
        return None, reason
    converted = next(
        (
            f"{name!r} from {tensor.dtype} to {template[name].dtype}".replace("torch.", "")
            for name, tensor in reply.weights.items()
            if tensor.dtype != template[name].dtype
        ),
        "",
    )
    try:
        check_numbers({"": fitted}, reply.num_examples, use, lambda _: template)
    except Refused as refused:
        return None, str(refused).replace("tensor", "array")
    return Answer(message, replace(reply, sets={"": fitted}), converted), ""


def _usual(found: Sequence[Weights]) -> Weights:
    """The first of those with the names and shapes that most have."""
    kinds: list[Any] = [tuple(sorted((name, tuple(one.shape)) for name, one in each.items())) for each in found]
    most = max(Counter(kinds).values())
    return next(each for each, kind in zip(found, kinds, strict=True) if kinds.count(kind) == most)
