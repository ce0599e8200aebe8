"""Clips each client's update, so that it moves the model by at most a given distance.

The server sends the norm: `fedpkg.apps.strategy` has the strategies with client-side clipping.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fedpkg.apps.message import Message
from fedpkg.apps.mods.updates import NotAnUpdate, Update, factor_to, is_training, refusal, with_update

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
    who = "adaptiveclipping_mod" if adaptive else "fixedclipping_mod"
    try:
        limit = _limit(message, who) if is_training(message) else 0.0
    except NotAnUpdate as error:
        return refusal(message, error)

    def clip(update: Update) -> None:
        metrics = list(update.reply.content.metric_records.values())
        if adaptive and len(metrics) != 1:
            raise NotAnUpdate(f"{who} needs exactly one MetricRecord in the reply")
        size = update.norm()
        factor = factor_to(limit, size)
        if factor < 1:
            update.replace(
                {
                    key: (before + factor * (after - before)).astype(after.dtype)
                    for key, (before, after) in update.pairs.items()
                }
            )
        if adaptive:
            metrics[0][NORM_BIT] = int(size <= limit)
        logger.info("%s: the update has norm %.4g, the limit is %.4g", who, size, limit)

    return with_update(who, message, context, call_next, clip)


def _limit(message: Message, who: str) -> float:
    for record in message.content.config_records.values():
        limit = record.get(CLIPPING_NORM)
        if isinstance(limit, (int, float)) and limit > 0:
            return float(limit)
    raise NotAnUpdate(
        f"{who} needs '{CLIPPING_NORM}', a number above 0, in the message's ConfigRecord: use a strategy with "
        "client-side clipping"
    )
