"""One request of a round: its clients' turns, their results, and the replies that count."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fedpkg.controller.choosing import drop_outs
from fedpkg.controller.events import TaskStarted
from fedpkg.controller.lanes import Lanes, Turn
from fedpkg.controller.ledger import Came, Ledger, came_of
from fedpkg.controller.metrics import Weight
from fedpkg.controller.orders import Ordering, Payloads, session_order
from fedpkg.controller.receiving import Received, Receiver
from fedpkg.errors import SessionFailed
from fedpkg.log import event
from fedpkg.replies.reading import Opened
from fedpkg.stores.base import ClientRow, RequestRow
from fedpkg.strategies.base import Payload, Reply, Request
from fedpkg.types import Json, ReplyKind
from fedpkg.waist.answer import Answer, Failure
from fedpkg.waist.order import Order

if TYPE_CHECKING:
    from fedpkg.controller.context import SessionContext
    from fedpkg.weights.weights import Weights

logger = logging.getLogger("fedpkg.controller")


@dataclass(kw_only=True)
class Desk:
    """What the requests of one round share.

    Args:
        common: the part that is equal in all orders of the session.
        aside: clients that are busy with other requests, which this round does not wait for.
        deadline: by the monotonic clock, for requests that the round waits for; None: no deadline.
        waited_s: seconds spent waiting for clients.
    """

    ctx: SessionContext
    round_number: int
    lanes: Lanes
    ledger: Ledger
    common: Order
    payloads: Payloads
    aside: frozenset[str] = field(default_factory=frozenset)
    deadline: float | None = None
    waited_s: float = 0.0

    @property
    def clients(self) -> Mapping[str, ClientRow]:
        return self.lanes.clients

    def wait(self, until: float | None = None) -> bool:
        """Wait for one more answer, to any request; False if no answer is left, or the time is over.

        ``until``: a deadline of the request that waits, beside the round's.
        """
        before = time.monotonic()
        deadlines = [one for one in (self.deadline, until) if one is not None]
        patience = max(0.0, min(deadlines) - before) if deadlines else None
        try:
            return self.lanes.take(patience)
        finally:
            self.waited_s += time.monotonic() - before

    def set_deadline(self) -> None:
        """Start the round's time limit, for all requests that wait from now on."""
        timeout_s = self.ctx.config.round.timeout_s
        self.deadline = None if timeout_s is None else time.monotonic() + timeout_s

    @property
    def when_mended(self) -> str:
        """The hint for a failed round."""
        session_id = self.ctx.session.session_id
        return (
            f"look at `fedpkg session show {session_id} --round {self.round_number}`; if the cause lies outside "
            f"the package, fix it and run `fedpkg session resume {session_id}`; for a changed package, start a new run"
        )


def desk_of(ctx: SessionContext, lanes: Lanes, round_number: int, ledger: Ledger, payloads: Payloads) -> Desk:
    common = session_order(ctx, len(ctx.client_ids))
    return Desk(ctx=ctx, round_number=round_number, lanes=lanes, ledger=ledger, common=common, payloads=payloads)


class Asked:
    """A request and its replies: those that count are used in cohort order, each as soon as it is next.

    The first ``target`` answers within the round's time count; then the count is recorded. With a virtual clock, its
    order decides: only the first clients by it are asked, and for each failure the next one (``reserve``).

    Args:
        sampled: clients that may drop out, in addition to those that did so in an earlier attempt.
        durations: of the clients' tasks, by the virtual clock; None: no virtual clock.

    Attributes:
        settled: by position in the cohort, the result of that client's part; None: in the end it was not asked.
        late: the failure of clients that have not answered when the round's time is over.
        is_outstanding: its replies are not available yet (see `Outstanding`).
        when_settled: is called when the results of all clients are known.
    """

    def __init__(
        self,
        desk: Desk,
        request: Request,
        row: RequestRow,
        *,
        sampled: Collection[str] = (),
        durations: Sequence[float] | None = None,
    ) -> None:
        self.desk = desk
        self.request = request
        self.row = row
        self.payload, self._sent_bytes = request.payload, None  # the clients' input
        if request.download is not None:
            self.payload, self._sent_bytes = desk.payloads.travelled(request)
            request = dataclasses.replace(request, payload=self.payload)
        self._ordering = Ordering.of(desk.ctx, desk.common, request, desk.payloads.model, row)
        self.cohort = tuple(row.cohort)
        self._counted = None if row.counted is None else frozenset(row.counted)
        self.settled: dict[int, Came | None] = {}
        self.late: Failure | None = None
        self.is_outstanding = False
        self.when_settled: Callable[[], None] | None = None
        self._num_ok = self._bytes_down = self._bytes_up = 0
        self._open_for_more = True
        self._started = time.monotonic()
        self._deadline = None if request.timeout_s is None else self._started + request.timeout_s
        self._replies = self._in_order()
        self._may_drop_out = frozenset(self.cohort).intersection(sampled if desk.ctx.sampler.dropout else ())
        self._drop_outs: dict[int, frozenset[str]] = {}
        self._durations = durations
        self._first, self._reserve = list(range(len(self.cohort))), deque[int]()
        if durations is not None and row.counted is None and row.target < len(self.cohort):
            by_time = sorted(self._first, key=durations.__getitem__)
            self._first, self._reserve = sorted(by_time[: row.target]), deque(by_time[row.target :])

    @property
    def request_id(self) -> str:
        return self.request.request_id

    @property
    def round_number(self) -> int:
        return self.row.round_number

    @property
    def asked(self) -> tuple[str, ...]:
        return self.cohort

    @property
    def missing(self) -> tuple[str, ...]:
        self._check_came()
        self.finish()
        counted = frozenset(self.row.counted or ())
        return tuple(name for name in self.cohort if name not in counted)

    @property
    def failures(self) -> dict[str, Failure]:
        self._check_came()
        self.finish()
        return {came.client_id: _with_log(came, failure) for came, failure in self._failed}

    def payload_of(self, client_id: str) -> Payload:
        """The input of a client."""
        return self.request.payloads.get(client_id, self.payload)

    @property
    def payloads(self) -> list[Payload]:
        return [self.payload, *self.request.payloads.values()]

    @property
    def wants_no_more(self) -> bool:
        return self._num_ok >= self.row.target or not self._open_for_more

    @property
    def is_settled(self) -> bool:
        return len(self.settled) == len(self.cohort)

    @property
    def usable(self) -> list[Came]:
        """The usable replies, in cohort order."""
        return [came for came in self._came if came.is_ok]

    @property
    def _came(self) -> list[Came]:
        """The results of the parts that were asked, in cohort order."""
        return [came for _, came in sorted(self.settled.items()) if came is not None]

    @property
    def _failed(self) -> list[tuple[Came, Failure]]:
        return [(came, came.failure) for came in self._came if came.failure is not None]

    def update_of(self, came: Came) -> Weights:
        """The mapped update of a usable answer."""
        assert came.reply is not None
        return self._ordering.reading.open(came.reply, self.receive.sent).sets[""]

    @property
    def falls_short(self) -> bool:
        """Whether it has fewer usable replies than required, or none."""
        return len(self.usable) < max(1, self._required)

    @property
    def virtual_s(self) -> float:
        """The time of the last answer that counts, by the virtual clock."""
        if self._durations is None or self.row.counted is None:
            return 0.0
        counted = set(self.row.counted)
        return max((s for name, s in zip(self.cohort, self._durations, strict=True) if name in counted), default=0.0)

    def __iter__(self) -> Iterator[Reply]:
        self._check_came()
        return self._replies

    def __next__(self) -> Reply:
        self._check_came()
        return next(self._replies)

    def _check_came(self) -> None:
        if self.is_outstanding:
            raise SessionFailed(
                f"round {self.desk.round_number}, request {self.request_id}: it is outstanding and has no replies yet",
                hint="a step that asks with wait='nothing' yields Arrived(number) to get the replies that have arrived",
            )

    # ---- the clients' turns

    def turns(self, *, without_reserve: bool = False) -> list[Turn]:
        """The clients that are asked first."""
        if without_reserve:
            self._reserve.clear()
        return [Turn(self, position) for position in self._first]

    def lane(self, position: int) -> str:
        """The lane of a client; a second one is for validation beside an outstanding request."""
        client_id = self.cohort[position]
        return f"{client_id} aside" if client_id in self.desk.aside else client_id

    def order_unless_settled(self, position: int) -> Order | None:
        """The order of a client whose turn has come; None: nothing has to run, and its part is settled."""
        row, ordering, client_id = self.row, self._ordering, self.cohort[position]
        ledger, recorded = self.desk.ledger, None
        if not self.desk.lanes.has_run(self.lane(position)):
            recorded = ledger.recall(row, client_id, ordering.reading, ordering.receive.sent)
        came, task = recorded or (None, None)
        moved = (0, 0) if task is None else (task.bytes_down, task.bytes_up)
        if self._counted is not None and client_id not in self._counted:
            has_failed = came is not None and came.failure is not None
            self._settle(position, came if has_failed else None, moved)
        elif came is not None:
            self._settle(position, came, moved)
        elif self.wants_no_more:
            self._settle(position, None)
        elif self._counted is None and self._drops_out(client_id):
            self._fail(position, Failure("dropout", "dropped out, by sampler.dropout"), self.desk.ctx.clock())
        else:
            order = self._order(position, sends=True)
            ledger.begun(order)
            return order
        return None

    @property
    def receive(self) -> Receiver:
        return self._ordering.receive

    def disown(self, position: int) -> None:
        """An earlier task of the client runs again, so the recorded result of this one started from another state."""
        self.desk.ledger.disown_recorded(self.row, self.cohort[position])

    def end(self) -> None:
        """End its running tasks. On record, clients that have not answered remain asked."""
        self._open_for_more = False
        self.desk.lanes.end(self)

    def started(self, order: Order) -> None:
        self.desk.ctx.watch(TaskStarted(order=order))

    def take(self, position: int, received: Received) -> None:
        """Record a client's answer."""
        desk, order, answer = self.desk, received.order, received.answer
        is_metrics = answer.status == "ok" and self.request.reply_kind is ReplyKind.METRICS
        weight = self._reported_weight(order.client_id, answer.metrics, answer.metadata) if is_metrics else None
        down = self._sent_bytes
        if down is None:
            down = 0 if order.input is None else order.input.size_bytes
        desk.ledger.record(received, position=position, since=self.row.started_at, bytes_down=down, weight=weight)
        if answer.converted is not None and "converted" not in desk.ctx.said:
            desk.ctx.said.add("converted")
            about = (
                f"{order.client_id} replies in another precision: {answer.converted}. Such replies are converted to "
                "the global model's precision (logged once)"
            )
            event(logger, logging.WARNING, "reply.converted", round=desk.round_number, about=about)
        came = came_of(received)
        if weight is not None:
            came = dataclasses.replace(came, num_examples=weight[0])
        self._settle(position, came, (down, received.bytes_up))

    def _drops_out(self, client_id: str) -> bool:
        times = self.desk.ledger.times_dropped_out(self.row, client_id)
        if not times and client_id not in self._may_drop_out:
            return False
        if times not in self._drop_outs:
            self._drop_outs[times] = drop_outs(self.desk.ctx, self.round_number, times).intersection(self.cohort)
        return client_id in self._drop_outs[times]

    def _order(self, position: int, *, sends: bool = False) -> Order:
        desk, lane = self.desk, self.lane(position)
        client = desk.clients[self.cohort[position]]
        return self._ordering.order(
            client,
            attempt=desk.ledger.next_attempt(client.client_id, self.request.entry_point),
            state=desk.lanes.states.get(lane, client.state_version),
            is_first=lane not in desk.lanes.states,
            file=desk.payloads.input(self.payload_of(client.client_id)) if sends else None,
        )

    def _fail(self, position: int, failure: Failure, started_at: float) -> None:
        """Record the failure of a client for which no task ran."""
        order = self._order(position)
        self.desk.ledger.begun(order)
        answer = Answer(task_id=order.task_id, status="failed", failure=failure, started_at=started_at)
        received = Received(order, answer)
        self.desk.ledger.record(received, position=position, since=self.row.started_at, bytes_down=0)
        self._settle(position, came_of(received))

    def _settle(self, position: int, came: Came | None, bytes_moved: tuple[int, int] = (0, 0)) -> None:
        """Set the result of a client's part; ``bytes_moved``: to the client, and from it."""
        self.settled[position] = came
        self._bytes_down += bytes_moved[0]
        self._bytes_up += bytes_moved[1]
        if came is not None and came.is_ok:
            self._num_ok += 1
            self.desk.lanes.states[self.lane(position)] = came.state
        elif came is not None and self._reserve:  # replaced by the next client by the virtual clock
            self.desk.lanes.enter([Turn(self, self._reserve.popleft())])
        if self.when_settled is not None and self.is_settled:
            self.when_settled()

    # ---- the replies

    def finish(self) -> None:
        """Settle every client's part, and record which answers count.

        Raises:
            SessionFailed: fewer answers count than are required.
        """
        for position in range(len(self.cohort)):
            self._wait_for(position)
        counted = [came.client_id for came in self.usable]
        if self.row.status == "answered" and self.row.counted == counted:
            return
        self.row = dataclasses.replace(
            self.row,
            num_ok=len(counted),
            num_failed=sum(came is not None and came.status == "failed" for came in self.settled.values()),
            bytes_down=self._bytes_down,
            bytes_up=self._bytes_up,
            wall_s=time.monotonic() - self._started,
        )
        if len(counted) < self._required:
            raise self._too_few(len(counted))
        self.row = dataclasses.replace(self.row, status="answered", counted=counted)
        is_by_time = self.row.target < len(self.cohort) or self.late is not None
        self.desk.ledger.note(self.row, at_once=is_by_time)

    def _wait_for(self, position: int) -> None:
        while position not in self.settled:
            if not self.wants_no_more and self.desk.wait(self._deadline):
                continue
            self._cut()

    def _cut(self) -> None:
        """Settle the remaining parts: their tasks are ended, or not started."""
        limit, timeout_s = "round's", self.desk.ctx.config.round.timeout_s
        if self._deadline is not None and self._deadline <= time.monotonic():
            limit, timeout_s = "request's", self.request.timeout_s
        if self._num_ok < self.row.target and timeout_s is not None:
            self.late = Failure("round_timeout", f"no answer within the {limit} {timeout_s:g} s")
        self.end()
        for position in range(len(self.cohort)):
            if position not in self.settled:
                if self.late is None:
                    self._settle(position, None)
                else:
                    self._fail(position, self.late, time.time())

    @property
    def _required(self) -> int:
        request, ctx = self.request, self.desk.ctx
        if request.required is not None:
            return request.required
        if request.wait == "nothing":
            return 0
        if request.clients is None and request.group is None:  # the sampler chose its clients
            return 0 if ctx.traits.takes_empty_rounds else ctx.least_updates
        return min(ctx.config.round.required, self.row.target)

    def _in_order(self) -> Iterator[Reply]:
        weights: Mapping[str, float] = {}
        if self.request.reply_kind is ReplyKind.METRICS:
            self.finish()
            weights = self._weights_of_metrics(self.usable)
        for position in range(len(self.cohort)):
            self._wait_for(position)
            came = self.settled[position]
            if came is not None and came.is_ok:
                yield self._reply(position, came, weights.get(came.client_id, came.num_examples))
        self.finish()

    def _reply(self, position: int, came: Came, weight: float | None) -> Reply:
        """The reply for the strategy: its file is memory-mapped now, for as long as the reply is referenced."""
        assert came.reply is not None and weight is not None
        opened = Opened()
        is_file = self.request.reply_kind is ReplyKind.RECORDS and self.request.as_files
        if self.request.reply_kind is not ReplyKind.METRICS and not is_file:
            opened = self._ordering.reading.open(came.reply, self.receive.sent)
        facts = (came.metadata, came.metrics, opened.records, came.reply if is_file else None)
        return Reply(self.request_id, position, came.client_id, opened.sets, weight, *facts)

    def _reported_weight(self, client_id: str, metrics: Json, metadata: Mapping[str, Json]) -> Weight:
        """The weight that a client reports for its metrics."""
        return self.desk.ctx.reported_weight(self.desk.clients[client_id], metrics, metadata)

    def _weights_of_metrics(self, came: Sequence[Came]) -> dict[str, float]:
        """The weights of these replies' metrics, by client: the source depends on all of them."""
        ids = [one.client_id for one in came]
        reported = [self._reported_weight(one.client_id, one.metrics, one.metadata) for one in came]
        weights = self.desk.ctx.weights_of_metrics([self.desk.clients[client_id] for client_id in ids], reported)
        return {client_id: weight for client_id, (weight, _) in zip(ids, weights, strict=True)}

    def _too_few(self, num_counted: int) -> SessionFailed:
        row = self.row
        failures = self._failed
        where = f"round {row.round_number}"
        if row.number > 1:
            where += f", request {self.request_id} ({self.request.entry_point})"
        by = "round.required" if self._required <= self.desk.ctx.config.round.required else "by the strategy"
        message = f"{where}: {num_counted} usable updates, {self._required} are required ({by})"
        for came, failure in failures[:3]:
            message += f"\n    {came.client_id}: {failure.message}"
        if len(failures) > 3:
            message += f"\n    … and {len(failures) - 3} more failed clients"
        return SessionFailed(
            message,
            hint=self.desk.when_mended,
            session_id=row.session_id,
            round_number=row.round_number,
        )


def _with_log(came: Came, failure: Failure) -> Failure:
    """The failure of a client, with the last line of its log, unless the message ends with it."""
    last = came.log_tail.strip().rpartition("\n")[2].strip()
    if not last or failure.message.endswith((last, last.partition(": ")[2] or last)):
        return failure
    return Failure(failure.kind, f"{failure.message}; {last}")
