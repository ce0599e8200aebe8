"""Logs how large the messages of a client are."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fedpkg.apps.message import Message

if TYPE_CHECKING:
    from collections.abc import Callable

    from fedpkg.apps.context import Context

logger = logging.getLogger("fedpkg.apps")


def message_size_mod(message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
    """Log the bytes of the records of each message and its reply."""
    logger.info("message_size_mod: the message has %d bytes", message.content.count_bytes())
    reply = call_next(message, context)
    if reply.has_content():
        logger.info("message_size_mod: the reply has %d bytes", reply.content.count_bytes())
    return reply


def arrays_size_mod(message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
    """Log the elements and bytes of each array record of a message and its reply."""
    _log("message", message)
    reply = call_next(message, context)
    if reply.has_content():
        _log("reply", reply)
    return reply


def _log(what: str, message: Message) -> None:
    for name, record in message.content.array_records.items():
        elements = sum(_elements(array.shape) for array in record.values())
        logger.info(
            "arrays_size_mod: '%s' of the %s has %d elements, %d bytes", name, what, elements, record.count_bytes()
        )


def _elements(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
