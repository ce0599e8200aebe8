"""Numbers that clients must report for their updates to be weighted; updates without them are left out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fedpkg.errors import NotSaid
from fedpkg.log import event
from fedpkg.strategies.base import Reply

logger = logging.getLogger("fedpkg.strategies")


@dataclass(frozen=True)
class Said:
    """A number that clients report in the metadata of their model, with its bounds."""

    key: str
    least: float
    most: float
    what: str  # "a number of local steps"

    def of(self, reply: Reply) -> float:
        """The number in a reply. Raises NotSaid: it is missing or out of bounds."""
        value = reply.metadata.get(self.key)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not self.least <= value <= self.most:
            raise NotSaid(
                f"{reply.client_id}: {self.key!r} in its metadata is {value!r}, not {self.what}",
                hint=f'clients must write {{"num_examples": …, "{self.key}": …}} as the metadata of their model',
                client_id=reply.client_id,
            )
        return float(value)


def with_numbers(replies: Iterator[Reply], number_of: Callable[[Reply], float]) -> Iterator[tuple[Reply, float]]:
    """The replies that report a number, each with it. The others are left out, with a warning in the log.

    Raises:
        AggregationError: no reply reports it.
    """
    refused = None
    some = False
    for reply in replies:
        try:
            number = number_of(reply)
        except NotSaid as error:
            refused = refused or error
            event(logger, logging.WARNING, "update.left_out", client=reply.client_id, reason=error.message)
            continue
        some = True
        yield reply, number
    if refused is not None and not some:
        raise refused
