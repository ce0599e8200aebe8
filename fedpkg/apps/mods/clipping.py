"""Clips each client's update, so that it moves the model by at most a given distance.

The server sends the norm: `fedpkg.apps.strategy` has the strategies with client-side clipping.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fedpkg.apps.message import Message
from fedpkg.apps.mods.updates import NotAnUpdate, floating, is_training, norm, refusal, the_arrays, with_arrays
from fedpkg.records import ArrayRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from fedpkg.apps.context import Context

CLIPPING_NORM = "clipping-norm"  # in the message's config record
NORM_BIT = "norm-bit"  # in the reply's metric record: 1 if the update was within the norm
logger = logging.getLogger("fedpkg.apps")


def fixedclipping_mod(message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
    """Scale the update down to the norm that the server sends (McMahan et al. 2018, arXiv:1710.06963)."""
    return _clipped(message, context, call_next, adaptive=False)


def adaptiveclipping_mod(
    message: Message, context: Context, call_next: Callable[[Message, Context], Message]
) -> Message:
    """As `fixedclipping_mod`; the reply also says whether the update was within the norm, so that the server can adapt
    it (Andrew et al. 2021, arXiv:1905.03871).
    """
    return _clipped(message, context, call_next, adaptive=True)


def _clipped(
    message: Message, context: Context, call_next: Callable[[Message, Context], Message], *, adaptive: bool
) -> Message:
    if not is_training(message):
        return call_next(message, context)
    who = "adaptiveclipping_mod" if adaptive else "fixedclipping_mod"
    try:
        _, given = the_arrays(message, who)
        limit = _limit(message, who)
        given = ArrayRecord(dict(given))  # the function may take arrays out of the message
        reply = call_next(message, context)
        if reply.has_error():
            return reply
        name, trained = the_arrays(reply, who)
        pairs = floating(given, trained, who)
        if adaptive and len(reply.content.metric_records) != 1:
            raise NotAnUpdate(f"{who} needs exactly one MetricRecord in the reply")
    except NotAnUpdate as error:
        return refusal(message, error)
    size = norm(after - before for before, after in pairs.values())
    factor = min(1.0, limit / size) if size > 0 else 1.0
    if factor < 1:
        clipped = {
            key: (before + factor * (after - before)).astype(after.dtype) for key, (before, after) in pairs.items()
        }
        reply.content[name] = with_arrays(trained, clipped)
    if adaptive:
        next(iter(reply.content.metric_records.values()))[NORM_BIT] = int(size <= limit)
    logger.info("%s: the update has norm %.4g, the limit is %.4g", who, size, limit)
    return reply


def _limit(message: Message, who: str) -> float:
    for record in message.content.config_records.values():
        limit = record.get(CLIPPING_NORM)
        if isinstance(limit, (int, float)) and limit > 0:
            return float(limit)
    raise NotAnUpdate(
        f"{who} needs '{CLIPPING_NORM}', a number above 0, in the message's ConfigRecord: use a strategy with "
        "client-side clipping"
    )
