"""The update of a training message: what its reply's arrays add to those that were sent, and its norm."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedpkg.apps.message import Error, ErrorCode, Message
from fedpkg.records import Array, ArrayRecord

if TYPE_CHECKING:
    import numpy as np

    from fedpkg.apps.context import Context


class NotAnUpdate(Exception):
    """A message or its reply has not the records that a mod needs."""


def refusal(message: Message, error: NotAnUpdate) -> Message:
    """The reply of a mod that cannot do its work."""
    return Message(Error(ErrorCode.MOD_FAILED_PRECONDITION, str(error)), reply_to=message)


def is_training(message: Message) -> bool:
    return message.metadata.message_type.partition(".")[0] == "train"


@dataclass(frozen=True)
class Update:
    """A training message's arrays before and after training.

    Attributes:
        given, trained: The array records of the message and of the reply.
        pairs: The floating arrays of both, by key; counters and other integers have no update.
    """

    reply: Message
    name: str
    given: ArrayRecord
    trained: ArrayRecord
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]]

    def norm(self) -> float:
        """The Euclidean norm of all changes together, in float64."""
        import numpy as np

        changes = ((after - before).astype(np.float64) for before, after in self.pairs.values())
        return math.sqrt(sum(float(np.vdot(one, one)) for one in changes))

    def replace(self, changed: Mapping[str, Any]) -> None:
        """Put other arrays into the reply."""
        self.reply.content[self.name] = ArrayRecord(
            {key: Array(changed[key]) if key in changed else array for key, array in self.trained.items()}
        )


def with_update(
    who: str,
    message: Message,
    context: Context,
    call_next: Callable[[Message, Context], Message],
    change: Callable[[Update], None],
) -> Message:
    """The reply to a message; if it is one to training, after ``change`` has worked on its update.

    Where there is no update, or ``change`` raises NotAnUpdate, the reply is an error that names the mod ``who``.
    """
    if not is_training(message):
        return call_next(message, context)
    try:
        _, given = _the_arrays(message, who)
        given = ArrayRecord(dict(given))  # the function may take arrays out of the message
        reply = call_next(message, context)
        if reply.has_error():
            return reply
        name, trained = _the_arrays(reply, who)
        change(Update(reply, name, given, trained, _floating(given, trained, who)))
    except NotAnUpdate as error:
        return refusal(message, error)
    return reply


def factor_to(limit: float, size: float) -> float:
    """What an update of this norm is multiplied by so that its norm is at most ``limit``."""
    return min(1.0, limit / size) if size > 0 else 1.0


def _the_arrays(message: Message, who: str) -> tuple[str, ArrayRecord]:
    """The only array record of a message, with its name. Raises NotAnUpdate: there are none or several."""
    found = list(message.content.array_records.items())
    if len(found) != 1:
        raise NotAnUpdate(f"{who} needs exactly one ArrayRecord in the message and in its reply, not {len(found)}")
    return found[0]


def _floating(given: ArrayRecord, trained: ArrayRecord, who: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """See `Update.pairs`. Raises NotAnUpdate: the records have other keys or shapes."""
    if list(given) != list(trained):
        raise NotAnUpdate(f"{who} needs a reply with the same arrays in the same order as the message")
    found = {}
    for key in given:
        before, after = given[key].numpy(), trained[key].numpy()
        if before.shape != after.shape:
            raise NotAnUpdate(f"{who}: the array '{key}' has the shape {after.shape} instead of {before.shape}")
        if before.dtype.kind == "f" and after.dtype.kind == "f":
            found[key] = (before, after)
    return found
