"""The node that builds messages, and where their ids and times come from: the only place that knows a clock.

In a unit test or a notebook it is node 0 of run 0 with the clock of the machine. A program that runs inside a session
replaces it before it calls an app:

    identity.use(Identity(run_id=1, node_id=3, prefix="r4-", now=lambda: message.metadata.created_at))
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Identity:
    """Which node of which run builds messages.

    Args:
        prefix: What the ids of its messages begin with; a counter follows.
        now: Seconds since 1970.
        count: The number of messages that it has built.
    """

    run_id: int = 0
    node_id: int = 0
    prefix: str = ""
    now: Callable[[], float] = time.time
    count: int = 0

    def next_message_id(self) -> str:
        self.count += 1
        return f"{self.prefix}{self.count}"


_current = Identity()


def current() -> Identity:
    """The identity that is in use."""
    return _current


def use(identity: Identity) -> Identity:
    """Use an identity for all messages that are built from now on; returns the former one."""
    global _current
    former, _current = _current, identity
    return former


def run_id_of(text: str) -> int:
    """The number of a run for apps: the first 63 bits of a digest of what identifies it."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
