"""Live updates: one watcher for a home, and one drawing of a page for all that have it open."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

EVERY_S = 0.4  # between two looks at the change signal, which cost microseconds
SHARE = 0.03  # of a processor that the drawing of live regions may take
LONGEST_S = 5.0  # between two drawings, however long they take

Regions: TypeAlias = "dict[str, str]"  # HTML by the name of its block
Key: TypeAlias = "tuple[str, str]"  # a page's address with its query, and the role of its viewers


@dataclass(frozen=True)
class Change:
    """Regions that have changed; ``stamp`` is the home's state that they show."""

    stamp: str
    regions: Regions

    @cached_property
    def event(self) -> bytes:
        """As a server-sent event; it is encoded once for all viewers."""
        return f"id: {self.stamp}\ndata: {json.dumps(self.regions)}\n\n".encode()


Queue: TypeAlias = "asyncio.Queue[Change | None]"  # None: the server ends


class Channel:
    """The viewers of one page."""

    def __init__(self) -> None:
        self.viewers: set[Queue] = set()
        self.last: Regions = {}

    def send(self, change: Change) -> None:
        """Give every viewer the regions that differ from the last ones."""
        changed = {name: text for name, text in change.regions.items() if self.last.get(name) != text}
        self.last = change.regions
        news = Change(change.stamp, changed)
        for queue in self.viewers if changed else ():
            _put(queue, news)


def _put(queue: Queue, news: Change) -> None:
    """A slow viewer gets one change, which has all regions of those that wait."""
    while not queue.empty():
        waiting = queue.get_nowait()
        news = Change(news.stamp, {**(waiting.regions if waiting else {}), **news.regions})
    queue.put_nowait(news)


class Live:
    """Looks at the home while a page is open, and draws what has changed.

    Args:
        stamp: a text that changes with the home.
        draw: the live regions of a page.
    """

    def __init__(self, stamp: Callable[[], Awaitable[str]], draw: Callable[[Key], Awaitable[Regions]]) -> None:
        self._stamp, self._draw = stamp, draw
        self._channels: dict[Key, Channel] = {}
        self._watcher: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return sum(len(channel.viewers) for channel in self._channels.values())

    async def join(self, key: Key, since: str) -> Queue:
        """The changes of a page that was drawn at the stamp ``since``; give the queue back to `leave`."""
        queue: Queue = asyncio.Queue()
        channel = self._channels.setdefault(key, Channel())
        channel.viewers.add(queue)
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._watch())
        stamp = await self._stamp()
        if stamp != since:
            _put(queue, Change(stamp, await self._draw(key)))
        return queue

    def leave(self, key: Key, queue: Queue) -> bool:
        """Whether it was the page's last viewer."""
        channel = self._channels[key]
        channel.viewers.discard(queue)
        if not channel.viewers:
            del self._channels[key]
        return not channel.viewers

    async def close(self) -> None:
        """End the watcher, and tell all viewers."""
        if self._watcher is not None:
            self._watcher.cancel()
            with suppress(asyncio.CancelledError):
                await self._watcher
        for channel in self._channels.values():
            for queue in channel.viewers:
                queue.put_nowait(None)

    async def _watch(self) -> None:
        last = await self._stamp()
        while self._channels:
            await asyncio.sleep(EVERY_S)
            stamp = await self._stamp()
            if stamp == last:
                continue
            last, before = stamp, time.process_time()
            for key, channel in list(self._channels.items()):
                channel.send(Change(stamp, await self._draw(key)))
            spent = time.process_time() - before
            await asyncio.sleep(max(0.0, min(LONGEST_S, spent / SHARE) - EVERY_S))
