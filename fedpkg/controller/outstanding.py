"""Requests that stay outstanding while the strategy continues for some steps or rounds, and the order of their ends."""

from __future__ import annotations

import dataclasses
import functools
import heapq
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from fedpkg.controller.asked import Asked, Desk
from fedpkg.errors import SessionFailed, StoreError
from fedpkg.stores.base import RequestRow
from fedpkg.strategies.base import Request
from fedpkg.transforms.sections import chain_of_sections, sections_of
from fedpkg.types import ReplyKind

Key: TypeAlias = "tuple[int, str]"  # the request's round and id
_KEPT = (
    *("payload", "sets", "parameters", "reply", "rest", "required", "use", "payloads", "phase", "as_files"),
    "contributes",
)
"""Fields that are not in the request's row. Older states lack the last ones."""


class Outstanding:
    """The outstanding requests of a session.

    Which requests a step gets, and in which order, depends on time. The controller records the order before the step
    gets them, so that it is replayed when the round is repeated.
    """

    def __init__(self) -> None:
        self._asked: dict[Key, Asked] = {}
        self._waiting: dict[Key, int] = {}  # those that have not arrived, and the order in which they were asked
        self._lines: dict[str, dict[Key, None]] = {}  # the same by client, in that order
        self._numbers = itertools.count()
        self._arrived: dict[Key, None] = {}  # in the order in which they arrived
        self._idle: list[Asked] = []  # from an earlier controller, not restarted yet

    def __len__(self) -> int:
        return len(self._asked)

    @property
    def clients(self) -> frozenset[str]:
        """All clients of these requests; they are busy."""
        return frozenset(client_id for asked in self._asked.values() for client_id in asked.cohort)

    @property
    def payloads(self) -> frozenset[int]:
        """The ids of the payloads, whose files must be kept."""
        return frozenset(id(one) for asked in self._asked.values() for one in asked.payloads)

    @property
    def oldest(self) -> int | None:
        """The earliest round of these requests; its files are needed."""
        return min((number for number, _ in self._asked), default=None)

    def add(self, asked: Asked) -> None:
        """Add a new request, before any of its turns starts."""
        key = asked.round_number, asked.request_id
        self._asked[key], self._waiting[key] = asked, next(self._numbers)
        for client_id in asked.cohort:
            self._lines.setdefault(client_id, {})[key] = None
        asked.is_outstanding, asked.when_settled = True, functools.partial(self._note, [key])
        if asked.is_settled:  # it has no clients
            self._note([key])

    def _note(self, keys: Iterable[Key]) -> None:
        """Requests may have ended: each arrives once all earlier requests to any of its clients have arrived.

        If a later request arrived first, the earlier one would reset its client to an older state. Requests that
        arrive at once do so in the order in which they were asked.
        """
        found = [(self._waiting[key], key) for key in keys if key in self._waiting]
        heapq.heapify(found)
        while found:
            number, key = heapq.heappop(found)
            if self._waiting.get(key) != number or not self._asked[key].is_settled or not self._is_first(key):
                continue
            self._arrived[key] = None
            for following in self._leave(key):
                heapq.heappush(found, (self._waiting[following], following))

    def _is_first(self, key: Key) -> bool:
        return all(next(iter(self._lines[client_id])) == key for client_id in self._asked[key].cohort)

    def _leave(self, key: Key) -> list[Key]:
        """Take a request out of those that have not arrived; return those that are first of a client now."""
        del self._waiting[key]
        following = []
        for client_id in self._asked[key].cohort:
            line = self._lines[client_id]
            del line[key]
            if line:
                following.append(next(iter(line)))
            else:
                del self._lines[client_id]
        return following

    def begin(self) -> None:
        """Restart the requests of an earlier controller; tasks with recorded answers do not run again."""
        idle, self._idle = self._idle, []
        for asked in idle:
            asked.desk.lanes.enter(asked.turns())

    def arrived(self, number: int, wait: Callable[[], bool]) -> list[Key]:
        """The next ``number`` requests in the order of their ends; fewer if none are left or the time is over.

        With 0, all requests that have ended by now.
        """
        while (not number or len(self._arrived) < min(number, len(self._asked))) and wait():
            pass
        return list(self._arrived)[: number or None]

    def take(self, keys: Sequence[Key], wait: Callable[[], bool]) -> list[Asked]:
        """These requests, which count from now on; waits for those that have not ended.

        Raises:
            SessionFailed: one of the requests is not outstanding.
        """
        found = []
        for key in keys:
            if (asked := self._asked.get(key)) is None:
                raise SessionFailed(
                    f"request {key[1]} of round {key[0]} is recorded as arrived, but the strategy did not send it",
                    hint="a step must depend on nothing but its state, its replies and ctx.rng",
                )
            while not asked.is_settled and wait():
                pass
            if not asked.is_settled:
                raise SessionFailed(f"request {key[1]} of round {key[0]} was answered before, but not in time now")
            self._arrived.pop(key, None)
            following = self._leave(key) if key in self._waiting else []
            del self._asked[key]
            self._note(following)
            asked.is_outstanding = False
            found.append(asked)
        return found

    def end(self) -> None:
        """End all tasks after the last round. The requests stay outstanding on record, in case it is extended."""
        for asked in self._asked.values():
            if not asked.is_settled:
                asked.end()

    # ---- over rounds and controllers

    def to_data(self) -> list[dict[str, Any]]:
        """The data and `Weights` that are stored with the strategy's state."""
        return [
            {"round": number, "id": request_id, **_to_data(asked.request)}
            for (number, request_id), asked in self._asked.items()
        ]

    def take_up(self, kept: Sequence[Mapping[str, Any]], desk: Callable[[int], Desk]) -> None:
        """Load the requests of an earlier controller; ``desk`` creates the desk of a round. Nothing is sent yet.

        Raises:
            StoreError: a request is not on record.
        """
        desks: dict[int, Desk] = {}
        for data in kept:
            number, request_id = data["round"], data["id"]
            of_round = desks.setdefault(number, desks.get(number) or desk(number))
            if (row := of_round.ledger.earlier.get(request_id)) is None:
                raise StoreError(f"request {request_id} of round {number} is outstanding, but not in the store")
            if row.status == "failed":
                row = dataclasses.replace(row, status="asked", started_at=of_round.ctx.clock())
                row = of_round.ledger.begin_again(row)
            asked = Asked(of_round, _request(data, row), row)
            self.add(asked)
            self._idle.append(asked)


def _to_data(request: Request) -> dict[str, Any]:
    kept = {name: getattr(request, name) for name in _KEPT}
    return {**kept, "transforms": list(sections_of(request.transforms))}


def _request(data: Mapping[str, Any], row: RequestRow) -> Request:
    return Request(
        request_id=row.request_id,
        clients=tuple(row.cohort),
        entry_point=row.entry_point,
        reply_kind=ReplyKind(row.reply_kind),
        group=row.client_group,
        wait="nothing",
        transforms=chain_of_sections(data["transforms"]),
        **{name: data[name] for name in _KEPT if name in data},
    )
