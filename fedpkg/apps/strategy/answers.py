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
        self.virtual_s = 0.0
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
        reason = error_of(message) or weight_in(metrics_of(message.content), weight_key)
        if isinstance(reason, str):
            left_out.append(LeftOut(message, reason))
        else:
            usable.append(Answer(message))
    return usable, left_out


def opened(
    messages: Sequence[Message], *, arrays_key: str, weight_key: str, model: Weights | None, needs_model: bool, use: Use
) -> tuple[list[Answer], list[LeftOut], Weights | None]:
    """The replies whose arrays and weights can be used, all others, and what the arrays of the former fit."""
    intake = Intake(arrays_key, weight_key, model, needs_model=needs_model, use=use)
    usable = [answer for place, message in enumerate(messages) if (answer := intake.take(place, message)) is not None]
    usable += intake.rest()
    return usable, intake.left_out, intake.template


class Intake:
    """Takes the replies of a phase one by one, and checks their arrays and weights.

    The arrays must fit the model that was sent. If no reply fits it, the strategy does not need it, and more than half
    of the replies have the same names and shapes, with other names than the model, they must fit the first of these: an
    app may send a whole model and get a part of it. Without a model, they must fit the first of those with the most
    frequent names and shapes.

    Attributes:
        template: What the arrays of usable replies fit. It is final after `rest`.
    """

    def __init__(
        self, arrays_key: str, weight_key: str, model: Weights | None, *, needs_model: bool = False, use: Use
    ) -> None:
        self.template = model
        self._keys = (arrays_key, weight_key)
        self._model = model
        self._needs_model = needs_model
        self._use = use
        self._fits_model = False  # whether any reply does
        self._waiting: list[tuple[Message, Reply]] = []  # those that do not fit the model
        self._left_out: list[tuple[int, LeftOut]] = []

    @property
    def left_out(self) -> list[LeftOut]:
        """The messages that cannot be used, in order of their positions."""
        return [one for _, one in sorted(self._left_out, key=lambda entry: entry[0])]

    def take(self, position: int, message: Message) -> Answer | None:
        """The reply if it can be used; None if it cannot, or if only `rest` can tell."""
        reply = _read(position, message, [""], *self._keys)
        if isinstance(reply, str):
            return self._usable(position, message, reply)
        if self._model is not None:
            fitted, reason = _fitted(reply.weights, self._model)
            if not reason:
                self._fits_model = True
                sets, templates = {"": fitted}, {"": self._model}
                return self._usable(position, message, _checked_numbers(message, reply, sets, templates, self._use))
        self._waiting.append((message, reply))
        return None

    def rest(self) -> list[Answer]:
        """The remaining replies that can be used; there are no further ones."""
        if self._waiting and not self._fits_model and not (self._model is not None and self._needs_model):
            found = [reply.weights for _, reply in self._waiting]
            other, number = _usual(found)
            if self._model is None or (other.keys() != self._model.keys() and 2 * number > len(found)):
                self.template = other
        usable = []
        for message, reply in self._waiting:
            templates = {} if self.template is None else {"": self.template}
            found_one = self._usable(reply.position, message, _checked(message, reply, templates, self._use))
            usable += [] if found_one is None else [found_one]
        self._waiting.clear()
        return usable

    def _usable(self, position: int, message: Message, found: Answer | str) -> Answer | None:
        if isinstance(found, Answer):
            return found
        self._left_out.append((position, LeftOut(message, found)))
        return None


def opened_sets(
    messages: Sequence[Message], templates: Mapping[str, Weights], *, arrays_key: str, weight_key: str, use: Use
) -> tuple[list[Answer], list[LeftOut]]:
    """The replies with a weight and all these sets (``""`` is the one without a name), and all others."""
    usable: list[Answer] = []
    left_out: list[LeftOut] = []
    for position, message in enumerate(messages):
        reply = _read(position, message, list(templates), arrays_key, weight_key)
        found = reply if isinstance(reply, str) else _checked(message, reply, templates, use)
        if isinstance(found, str):
            left_out.append(LeftOut(message, found))
        else:
            usable.append(found)
    return usable, left_out


def error_of(message: Message) -> str | None:
    """The error of a message without content."""
    return f"error {message.error.code}: {message.error.reason}" if message.has_error() else None


def _read(position: int, message: Message, names: Sequence[str], arrays_key: str, weight_key: str) -> Reply | str:
    """The named sets of a reply and its weight; or why it cannot be used."""
    from fedpkg.strategies.base import Reply
    from fedpkg.weights.fold import MAX_WEIGHT, MIN_WEIGHT

    if (error := error_of(message)) is not None:
        return error
    metrics, sets = metrics_of(message.content), {}
    for name in names:
        records = message.content.array_records
        arrays = records.get(name, f"it has no array record {name!r}") if name else array_record_of(message, arrays_key)
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


def _checked(message: Message, reply: Reply, templates: Mapping[str, Weights], use: Use) -> Answer | str:
    sets = {}
    for name, template in templates.items():
        sets[name], reason = _fitted(reply.sets[name], template)
        if reason:
            return f"record {name!r}: {reason}" if name else reason
    return _checked_numbers(message, reply, sets, templates, use)


def _checked_numbers(
    message: Message, reply: Reply, sets: Mapping[str, Weights], templates: Mapping[str, Weights], use: Use
) -> Answer | str:
    """The reply with its sets as they fit the templates, if their values can be used."""
    from fedpkg.replies.numbers import check_numbers
    from fedpkg.waist.answer import Refused
    from fedpkg.weights.weights import dtype_name

    converted = ""
    for name, template in templates.items():
        for key, tensor in reply.sets[name].items():
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
