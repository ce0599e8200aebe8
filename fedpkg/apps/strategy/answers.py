"""Replies of nodes as fedpkg's strategies take them, each checked; one that cannot be used costs that reply only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
        came = {reply.client_id for reply in replies}
        self.missing = tuple(name for name in asked if name not in came)
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

    That is the model that was sent. If no reply fits it, the strategy does not need it, and more than half of the
    replies have the same names and shapes, with other names than the model, it is the first of these: an app may send a
    whole model and get a part of it. Without a model, it is the first of those with the most frequent names and shapes.
    """
    read = _read(messages, [""], arrays_key, weight_key)
    found = [one.weights for one in read if not isinstance(one, str)]
    template = model
    if found and model is None:
        template = _usual(found)[0]
    elif found and model is not None and not needs_model and all(_fitted(one, model)[1] for one in found):
        other, number = _usual(found)
        if other.keys() != model.keys() and 2 * number > len(found):
            template = other
    usable, left_out = _all_checked(messages, read, {} if template is None else {"": template}, use)
    return usable, left_out, template


def opened_sets(
    messages: Sequence[Message], templates: Mapping[str, Weights], *, arrays_key: str, weight_key: str, use: Use
) -> tuple[list[Answer], list[LeftOut]]:
    """The replies with a weight and all these sets (``""`` is the one without a name), and all others."""
    return _all_checked(messages, _read(messages, list(templates), arrays_key, weight_key), templates, use)


def _error(message: Message) -> str | None:
    return f"error {message.error.code}: {message.error.reason}" if message.has_error() else None


def _read(messages: Sequence[Message], names: Sequence[str], arrays_key: str, weight_key: str) -> list[Reply | str]:
    """The named sets of each reply and its weight; or why it cannot be used."""
    from fedpkg.strategies.base import Reply
    from fedpkg.weights.fold import MAX_WEIGHT, MIN_WEIGHT

    def read(position: int, message: Message) -> Reply | str:
        if (error := _error(message)) is not None:
            return error
        metrics, sets = metrics_of(message.content), {}
        for name in names:
            records = message.content.array_records
            arrays = (
                records.get(name, f"it has no array record {name!r}") if name else array_record_of(message, arrays_key)
            )
            if isinstance(arrays, str):
                return arrays
            try:
                sets[name] = to_weights(arrays)
            except (TypeError, ValueError) as unreadable:
                return str(unreadable)
        weight = weight_in(metrics, weight_key)
        if isinstance(weight, str):
            return weight
        if not MIN_WEIGHT <= weight <= MAX_WEIGHT:
            return f"{weight_key!r}, by which replies are weighted, is {weight:g}, which is out of range"
        return Reply("", position, node_name(message), sets, weight, metrics, metrics)

    return [read(position, message) for position, message in enumerate(messages)]


def _all_checked(
    messages: Sequence[Message], read: Sequence[Reply | str], templates: Mapping[str, Weights], use: Use
) -> tuple[list[Answer], list[LeftOut]]:
    usable, left_out = [], []
    for message, one in zip(messages, read, strict=True):
        found = one if isinstance(one, str) else _checked(message, one, templates, use)
        if isinstance(found, str):
            left_out.append(LeftOut(message, found))
        else:
            usable.append(found)
    return usable, left_out


def _checked(message: Message, reply: Reply, templates: Mapping[str, Weights], use: Use) -> Answer | str:
    from fedpkg.replies.numbers import check_numbers
    from fedpkg.waist.answer import Refused
    from fedpkg.weights.weights import dtype_name

    sets, converted = {}, ""
    for name, template in templates.items():
        came = reply.sets[name]
        sets[name], reason = _fitted(came, template)
        if reason:
            return f"record {name!r}: {reason}" if name else reason
        for key, tensor in came.items():
            if tensor.dtype != template[key].dtype and not converted:
                converted = f"{key!r} from {dtype_name(tensor)} to {dtype_name(template[key])}"
    try:
        check_numbers(sets, reply.num_examples, use, templates.get)
    except Refused as refused:
        return str(refused).replace("tensor", "array")
    return Answer(message, replace(reply, sets=sets), converted)


def _fitted(came: Weights, template: Weights) -> tuple[Weights, str]:
    """The arrays in the dtypes and the order of the template; or why they do not fit."""
    came = came.in_dtypes_of(template)
    if reason := came.mismatch(template):
        return came, reason.replace("tensor", "array").replace("the global model has", "expected is")
    return came.reordered_like(template), ""


def _usual(found: Sequence[Weights]) -> tuple[Weights, int]:
    """The first of those with the most frequent names and shapes, and their number."""
    kinds: list[Any] = [tuple(sorted((name, tuple(one.shape)) for name, one in each.items())) for each in found]
    kind, number = Counter(kinds).most_common(1)[0]
    return found[kinds.index(kind)], number
