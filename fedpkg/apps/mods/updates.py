"""The update of a training message: what its reply's arrays add to those that were sent, and its norm."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fedpkg.apps.message import Error, ErrorCode, Message
from fedpkg.records import Array, ArrayRecord

if TYPE_CHECKING:
    import numpy as np


class NotAnUpdate(Exception):
    """A message or its reply has not the records that a mod needs."""


def refusal(message: Message, error: NotAnUpdate) -> Message:
    """The reply of a mod that cannot do its work."""
    return Message(Error(ErrorCode.MOD_FAILED_PRECONDITION, str(error)), reply_to=message)


def is_training(message: Message) -> bool:
    return message.metadata.message_type.partition(".")[0] == "train"


def the_arrays(message: Message, who: str) -> tuple[str, ArrayRecord]:
    """The only array record of a message, with its name. Raises NotAnUpdate: there are none or several."""
    found = list(message.content.array_records.items())
    if len(found) != 1:
        raise NotAnUpdate(f"{who} needs exactly one ArrayRecord in the message and in its reply, not {len(found)}")
    return found[0]


def floating(given: ArrayRecord, trained: ArrayRecord, who: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The floating arrays before and after training, by key; counters and other integers have no update.

    Raises:
        NotAnUpdate: The records have other keys or shapes.
    """
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


def norm(updates: Iterable[np.ndarray]) -> float:
    """The Euclidean norm of all arrays together, in float64."""
    import numpy as np

    return math.sqrt(sum(float(np.vdot(one, one)) for one in (each.astype(np.float64) for each in updates)))


def with_arrays(record: ArrayRecord, changed: dict[str, Any]) -> ArrayRecord:
    """The record with some arrays replaced, in the same order."""
    return ArrayRecord({key: Array(changed[key]) if key in changed else array for key, array in record.items()})
