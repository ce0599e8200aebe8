"""What a round asks of clients: its requests, their tasks in flight, and the replies that count."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fedpkg.controller.choosing import Choosing
from fedpkg.controller.context import SessionContext
from fedpkg.controller.events import PhaseStarted, RequestAsked, TaskStarted
from fedpkg.controller.gather import Gathering
from fedpkg.controller.ledger import Came, Ledger, came_of
from fedpkg.controller.metrics import Weight
from fedpkg.controller.orders import Ordering, Payloads, session_order
from fedpkg.controller.receiving import Received
from fedpkg.errors import SessionFailed
from fedpkg.log import event
from fedpkg.replies.reading import Opened
from fedpkg.samplers.base import Sample
from fedpkg.stores.base import ModelRow, RequestRow
from fedpkg.strategies.base import Reply, Request, sets_of
from fedpkg.types import Json, ReplyKind
from fedpkg.waist.answer import Answer, Failure
from fedpkg.waist.order import Order
from fedpkg.weights.records import Records
from fedpkg.weights.weights import Weights

logger = logging.getLogger("fedpkg.controller")
_KINDS = (ReplyKind.UPDATE, ReplyKind.SETS, ReplyKind.METRICS, ReplyKind.RECORDS)
_OF_WEIGHTS = (ReplyKind.UPDATE, ReplyKind.SETS)


class Asking:
    """The requests of one round, one after the other or several at once.

    What an earlier controller has recorded of the round is taken before anything is dispatched. Tasks of one client
    run one after the other, in the order of the requests: each begins with the state that the one before it left.

    Attributes:
        rows: the requests so far, as they were last recorded.
        last: number of examples and metadata of each client's last reply of weights that counts.
        states: tokens of the clients' states after their last task that counts.
        replies: the files of all replies that count.
        waited_s: for clients.
        virtual_s: what the round has taken by the virtual clock.
    """

    def __init__(
        self, ctx: SessionContext, round_number: int, model: Weights | None, model_row: ModelRow | None, ledger: Ledger
    ) -> None:
        self.ctx = ctx
        self.round_number = round_number
        self.model = model  # the global model that clients are sent; None: its file alone is of interest
        clients = ctx.store.list_clients(ctx.session.session_id)
        self.clients = {client.client_id: client for client in clients}
        self.choosing = Choosing(ctx, round_number, clients)
        self.ledger = ledger
        self.common = session_order(ctx, len(clients))
        self.rows: list[RequestRow] = []
        self.last: dict[str, tuple[float, Mapping[str, Json]]] = {}
        self.states: dict[str, str | None] = {}
        self.replies: list[Path] = []
        self.waited_s = self.virtual_s = 0.0
        self.takes_empty_rounds = ctx.traits.takes_empty_rounds
        self.payloads = Payloads(ctx, round_number, model, model_row)
        self._batch: list[Asked] = []
        self._batches = 0
        self._waiting: dict[str, deque[tuple[Asked, int]]] = {}  # by client: its tasks; the first may be in flight
        self._in_flight: dict[str, tuple[Asked, int]] = {}  # by task
        self._anew: set[str] = set()  # clients of whom a task has run: what is on record of later ones began elsewhere

    def ask(self, requests: Sequence[Request]) -> tuple[Asked, ...]:
        """Ask these at once; what was asked before is brought to its end.

        Raises:
            SessionFailed: a request cannot be asked, or too few usable replies came to one before.
            StoreError: the disk is full.
        """
        self.finish()
        self.open_gathering()
        # All are chosen before any is put on record: where one finds nobody, none of them is asked.
        chosen = [self._chosen(request, len(self.rows) + place) for place, request in enumerate(requests, 1)]
        return self._ask(chosen)

    def open_gathering(self) -> None:
        """From now on tasks are of another batch, with the round's time before it."""
        self._gathering = Gathering(self.ctx.executor, timeout_s=self.ctx.config.round.timeout_s)
        self._batches += 1

    def _ask(self, chosen: Sequence[tuple[Request, Sample]]) -> tuple[Asked, ...]:
        for request, sample in chosen:
            self._batch.append(self._begin(request, sample))
            self.ctx.watch(RequestAsked(request=self._batch[-1].row))
        if len(chosen) > 1:  # who steps in, and when, would depend on when it is seen that somebody failed
            for asked in self._batch:
                asked.reserve.clear()
        self._tell(sum(len(asked.cohort) for asked in self._batch))
        order = [(asked, position) for asked in self._batch for position in asked.first_asked]
        for asked, position in order:
            self._waiting.setdefault(asked.cohort[position], deque()).append((asked, position))
        for client_id in dict.fromkeys(asked.cohort[position] for asked, position in order):
            self._advance(client_id)
        return tuple(self._batch)

    def _tell(self, num_tasks: int) -> None:
        """Tell those who watch that tasks begin."""
        number, batch = self.round_number, self._batches
        self.ctx.watch(PhaseStarted(round_number=number, phase="train", num_clients=num_tasks, batch=batch))

    def durations(self, request: Request, row: RequestRow) -> list[float] | None:
        """Virtual seconds that the tasks of a request take; None without a virtual clock."""
        return self.choosing.durations(row.cohort, request.payload, row.number)

    def sample(self) -> tuple[str, ...]:
        """The clients that the session's sampler chooses; at each call others."""
        return self.choosing.sample().clients

    def finish(self) -> None:
        """Wait for all that was asked, and write down which replies count; a strategy may stop reading early."""
        for asked in self._batch:
            asked.finish()
        self.virtual_s += max((asked.virtual_s for asked in self._batch), default=0.0)
        self._batch = []
        self.payloads.clear()

    def check_answered(self) -> None:
        """Was anything answered at all?

        Raises:
            SessionFailed: clients were asked, and no reply is usable, whatever the strategy requires.
        """
        calls = sum(len(row.cohort) for row in self.rows)
        if calls and not self.takes_empty_rounds and not any(row.num_ok for row in self.rows):
            raise SessionFailed(
                f"round {self.round_number}: none of {calls} calls of clients has a usable reply",
                hint=self.when_mended,
                session_id=self.ctx.session.session_id,
                round_number=self.round_number,
            )

    @property
    def when_mended(self) -> str:
        """What to do when a round has failed."""
        session_id = self.ctx.session.session_id
        return (
            f"look at `fedpkg session show {session_id} --round {self.round_number}`; if the cause lies outside "
            f"the package, mend it and `fedpkg session resume {session_id}`; for a changed package start a new run"
        )

    def failed_requests(self) -> list[RequestRow]:
        """For a round that ends without a model, what is asked again: all, if no reply counted; else what came last."""
        if not any(row.num_ok for row in self.rows):
            return [dataclasses.replace(row, status="failed", counted=None) for row in self.rows]
        return [dataclasses.replace(asked.row, status="failed", counted=None) for asked in self._batch]

    # ---- beginning

    def _chosen(self, request: Request, number: int) -> tuple[Request, Sample]:
        """A request with its id, and who is asked."""
        request = dataclasses.replace(request, request_id=request.request_id or str(number))
        self._check(request)
        sample = self._cohort(request)
        if isinstance(request.wait, int):
            sample = Sample(sample.clients, target=min(request.wait, sample.target))
        return request, sample

    def _begin(self, request: Request, sample: Sample) -> Asked:
        number = len(self.rows) + 1
        if any(row.request_id == request.request_id for row in self.rows):
            where = self._where(request.request_id)
            raise SessionFailed(f"{where}: a strategy has asked under that id before, in the same round")
        row = RequestRow(
            session_id=self.ctx.session.session_id,
            round_number=self.round_number,
            request_id=request.request_id,
            number=number,
            entry_point=request.entry_point,
            reply_kind=request.reply_kind.value,
            client_group=request.group,
            cohort=list(sample.clients),
            target=sample.target,
            started_at=self.ctx.clock(),
        )
        self.rows.append(self.ledger.begin(row, is_first=self._batches == 1))
        return Asked(self, request, self.rows[-1])

    def _check(self, request: Request) -> None:
        where = self._where(request.request_id)
        if request.reply_kind not in _KINDS:
            kinds = ", ".join(kind.value for kind in _KINDS)
            raise SessionFailed(f"{where}: a strategy asks for one of {kinds}, not {request.reply_kind.value}")
        if request.transforms is not None and request.reply_kind is not ReplyKind.UPDATE:
            raise SessionFailed(f"{where}: a strategy has transforms for {request.reply_kind.value}, not for an update")
        if request.download is not None and not isinstance(request.payload, Weights):
            raise SessionFailed(f"{where}: a strategy has transforms for a download of several sets")
        is_payload = isinstance(request.payload, (Mapping, Records))
        if not is_payload or not all(isinstance(one, Weights) for one in sets_of(request.payload).values()):
            raise SessionFailed(f"{where}: a payload is Weights, several named Weights, or Records")
        if isinstance(request.clients, str):
            raise SessionFailed(f"{where}: the clients of a request are several ids, as ('{request.clients}',)")
        try:
            json.dumps(dict(request.parameters))
        except (TypeError, ValueError) as error:
            raise SessionFailed(f"{where}: parameters must be JSON: {error}") from error
        if reason := _cannot_wait(request):
            raise SessionFailed(f"{where}: a strategy waits for {reason}")
        if request.reply_kind is ReplyKind.SETS and not request.sets:
            raise SessionFailed(f"{where}: a strategy asks for sets, but names none")
        if not self.ctx.traits.has_model and _fits_nothing(request):
            raise SessionFailed(
                f"{where}: a strategy without a model asks for {request.reply_kind.value} that need fit nothing",
                hint="ask for records, or send Weights that an update must fit",
            )
        self.ctx.spec.entry_point(request.entry_point)

    def _cohort(self, request: Request) -> Sample:
        clients = request.clients
        if clients is None and request.group is not None:
            clients = self.ctx.groups.get(request.group)
            if clients is None:
                raise SessionFailed(
                    f"{self._where(request.request_id)}: there is no group '{request.group}'",
                    hint=f"name its clients in the run.yaml: clients.groups.{request.group}",
                )
        if clients is None:
            return self.choosing.sample()
        may_not = self.ctx.held_out
        unknown = [client_id for client_id in clients if client_id not in self.clients or client_id in may_not]
        if not clients and self.takes_empty_rounds:
            return Sample((), target=0)
        if not clients or unknown or len(set(clients)) < len(clients):
            what = f"unknown clients: {', '.join(unknown[:3])}" if unknown else "nobody" if not clients else "one twice"
            raise SessionFailed(f"{self._where(request.request_id)}: a strategy asks {what}")
        return Sample(clients, target=len(clients))

    def _where(self, request_id: str) -> str:
        return f"round {self.round_number}" + (f", request {request_id}" if self.rows else "")

    # ---- tasks

    def _advance(self, client_id: str) -> None:
        """A client is free: settle what is known of its next tasks, up to one that must run."""
        waiting = self._waiting[client_id]
        while waiting:
            asked, position = waiting[0]
            if not self._settled_at_once(asked, position, client_id):
                order = self._order(asked, position, sends=True)
                self.ledger.begun(order)
                self._anew.add(client_id)
                self._in_flight[order.task_id] = (asked, position)
                self._gathering.submit(order, asked.ordering.receive)
                self.ctx.watch(TaskStarted(order=order))
                return
            waiting.popleft()

    def _settled_at_once(self, asked: Asked, position: int, client_id: str) -> bool:
        """Settle a client's part in a request, if nothing has to run for it."""
        row, ordering = asked.row, asked.ordering
        recorded = None
        if client_id not in self._anew:
            recorded = self.ledger.recall(row, client_id, ordering.reading, ordering.receive.sent)
        came, task = recorded or (None, None)
        if row.counted is not None and client_id not in row.counted:
            has_failed = came is not None and came.failure is not None
            bytes_moved = (0, 0) if task is None else (task.bytes_down, task.bytes_up)
            self.settle(asked, position, came if has_failed else None, bytes_moved)
        elif came is not None and task is not None:
            self.settle(asked, position, came, (task.bytes_down, task.bytes_up))
        elif asked.wants_no_more:
            self.settle(asked, position, None)
        elif self._drops_out(asked, client_id):
            self._fail(asked, position, Failure("dropout", "dropped out, as sampler.dropout has it"), self.ctx.clock())
        else:
            return False
        return True

    def _drops_out(self, asked: Asked, client_id: str) -> bool:
        return self.choosing.drops_out(client_id, self.ledger.times_dropped_out(asked.row, client_id))

    def _order(self, asked: Asked, position: int, *, sends: bool = False) -> Order:
        client = self.clients[asked.cohort[position]]
        return asked.ordering.order(
            client,
            attempt=self.ledger.next_attempt(client.client_id, asked.request.entry_point),
            state=self.states.get(client.client_id, client.state_version),
            is_first=client.client_id not in self.states,
            file=self.payloads.input(asked.payload) if sends else None,
        )

    def _fail(self, asked: Asked, position: int, failure: Failure, started_at: float) -> None:
        """Put on record that a client has failed without a task that ran."""
        order = self._order(asked, position)
        self.ledger.begun(order)
        answer = Answer(task_id=order.task_id, status="failed", failure=failure, started_at=started_at)
        received = Received(order, answer)
        self.ledger.record(received, position=position, bytes_down=0)
        self.settle(asked, position, came_of(received))

    def wait(self) -> bool:
        """Wait for one more answer, to any request; False when there is none left, or no time."""
        before = time.monotonic()
        received = self._gathering.next()
        self.waited_s += time.monotonic() - before
        if received is not None:
            self._take(received)
        return received is not None

    def cut(self, asked: Asked, late: Failure | None) -> None:
        """Settle all that is not, of one request: its tasks are ended, or not begun."""
        task_ids = [task_id for task_id, (owner, _) in self._in_flight.items() if owner is asked]
        for received in self._gathering.cut(late=late, only=task_ids):
            self._take(received)
        for position in range(len(asked.cohort)):
            if position not in asked.settled:  # it waits for its client to have done something else, or for its turn
                waiting = self._waiting.get(asked.cohort[position], deque())
                if (asked, position) in waiting:
                    waiting.remove((asked, position))
                if late is None:
                    self.settle(asked, position, None)
                else:
                    self._fail(asked, position, late, time.time())

    def _take(self, received: Received) -> None:
        """An answer has arrived: record it, and let its client go on."""
        order, answer = received.order, received.answer
        asked, position = self._in_flight.pop(order.task_id)
        is_metrics = answer.status == "ok" and asked.request.reply_kind is ReplyKind.METRICS
        weight = self._reported_weight(order.client_id, answer.metrics, answer.metadata) if is_metrics else None
        down = asked.sent_bytes
        if down is None:
            down = 0 if order.input is None else order.input.size_bytes
        self.ledger.record(received, position=position, bytes_down=down, weight=weight)
        if answer.converted is not None and "converted" not in self.ctx.said:
            self.ctx.said.add("converted")
            about = (
                f"{order.client_id} replies in another precision: {answer.converted}. Such replies are converted to "
            )
            about += "the global model's; this is said once"
            event(logger, logging.WARNING, "reply.converted", round=self.round_number, about=about)
        came = came_of(received)
        if weight is not None:
            came = dataclasses.replace(came, num_examples=weight[0])
        self.settle(asked, position, came, (down, received.bytes_up))
        self._waiting[order.client_id].popleft()
        self._advance(order.client_id)

    def settle(self, asked: Asked, position: int, came: Came | None, bytes_moved: tuple[int, int] = (0, 0)) -> None:
        """Note what came of a client's part in a request; ``bytes_moved``: to it, and from it."""
        asked.settled[position] = came
        asked.bytes_down += bytes_moved[0]
        asked.bytes_up += bytes_moved[1]
        if came is not None and came.is_ok:
            asked.num_ok += 1
            self.states[came.client_id] = came.state
            if asked.request.reply_kind in _OF_WEIGHTS:
                self.last[came.client_id] = (came.num_examples or 0.0, came.metadata)
            if came.reply is not None:
                self.replies.append(came.reply)
        elif came is not None and asked.reserve:  # the next by the virtual clock takes its place
            position = asked.reserve.popleft()
            waiting = self._waiting.setdefault(asked.cohort[position], deque())
            waiting.append((asked, position))
            if len(waiting) == 1:
                self._advance(asked.cohort[position])

    def _reported_weight(self, client_id: str, metrics: Json, metadata: Mapping[str, Json]) -> Weight:
        """What metrics say that they weigh."""
        return self.ctx.reported_weight(self.clients[client_id], metrics, metadata)

    def weights_of_metrics(self, came: Sequence[Came]) -> dict[str, float]:
        """What the replies of one request weigh, by client: which source they have depends on all of them."""
        ids = [one.client_id for one in came]
        reported = [self._reported_weight(one.client_id, one.metrics, one.metadata) for one in came]
        weights = self.ctx.weights_of_metrics([self.clients[client_id] for client_id in ids], reported)
        return {client_id: weight for client_id, (weight, _) in zip(ids, weights, strict=True)}

    def note(self, row: RequestRow) -> None:
        """Write down how a request was answered."""
        self.ledger.note(row)
        self.rows[row.number - 1] = row


class Asked:
    """A request that was asked, and its replies: counted ones in cohort order, each as soon as its turn has come.

    The first ``target`` answers count, and those within the round's time; then the count is written. With a virtual
    clock, the first are the first by it: only they are asked, and for each that fails the next one (``reserve``).
    """

    def __init__(self, asking: Asking, request: Request, row: RequestRow) -> None:
        self.request = request
        self.row = row
        self.payload, self.sent_bytes = request.payload, None  # what the clients get
        if request.download is not None:
            self.payload, self.sent_bytes = asking.payloads.travelled(request)
        received = dataclasses.replace(request, payload=self.payload)
        self.ordering = Ordering.of(asking.ctx, asking.common, received, asking.model, row)
        self.cohort = tuple(row.cohort)
        self.settled: dict[int, Came | None] = {}  # None: it was not asked in the end
        self.num_ok = 0
        self.bytes_down = self.bytes_up = 0
        self._asking = asking
        self._open_for_more = True
        self._started = time.monotonic()
        self._replies = self._in_order()
        self._durations = asking.durations(request, row)
        self.first_asked, self.reserve = list(range(len(self.cohort))), deque[int]()
        if self._durations is not None and row.counted is None and row.target < len(self.cohort):
            by_time = sorted(self.first_asked, key=self._durations.__getitem__)
            self.first_asked, self.reserve = sorted(by_time[: row.target]), deque(by_time[row.target :])

    @property
    def virtual_s(self) -> float:
        """When the last of those who count had answered, by the virtual clock."""
        if self._durations is None or self.row.counted is None:
            return 0.0
        counted = set(self.row.counted)
        return max((s for name, s in zip(self.cohort, self._durations, strict=True) if name in counted), default=0.0)

    @property
    def request_id(self) -> str:
        return self.request.request_id

    @property
    def asked(self) -> tuple[str, ...]:
        return self.cohort

    @property
    def missing(self) -> tuple[str, ...]:
        self.finish()
        return tuple(name for name in self.cohort if name not in (self.row.counted or ()))

    @property
    def wants_no_more(self) -> bool:
        return self.num_ok >= self.row.target or not self._open_for_more

    def __iter__(self) -> Iterator[Reply]:
        return self._replies

    def __next__(self) -> Reply:
        return next(self._replies)

    def finish(self) -> None:
        """Settle every client's answer, and write down which count.

        Raises:
            SessionFailed: fewer than are required.
        """
        for position in range(len(self.cohort)):
            self._settle(position)
        results = [self.settled[position] for position in range(len(self.cohort))]
        counted = [came.client_id for came in results if came is not None and came.is_ok]
        if self.row.counted == counted:
            return
        row = dataclasses.replace(
            self.row,
            num_ok=len(counted),
            num_failed=sum(came is not None and came.status == "failed" for came in results),
            bytes_down=self.bytes_down,
            bytes_up=self.bytes_up,
            wall_s=time.monotonic() - self._started,
        )
        self.row = self._asking.rows[row.number - 1] = row
        if len(counted) < self._required:
            raise self._too_few(len(counted))
        self.row = dataclasses.replace(row, status="answered", counted=counted)
        self._asking.note(self.row)

    @property
    def _required(self) -> int:
        if self.request.required is not None:
            return self.request.required
        if self.request.clients is None and self.request.group is None:  # whom the sampler chose
            return 0 if self._asking.takes_empty_rounds else self._asking.ctx.least_updates
        return min(self._asking.ctx.config.round.required, self.row.target)

    def _in_order(self) -> Iterator[Reply]:
        weights: Mapping[str, float] = {}
        if self.request.reply_kind is ReplyKind.METRICS:
            self.finish()
            settled = [self.settled[position] for position in range(len(self.cohort))]
            weights = self._asking.weights_of_metrics([came for came in settled if came is not None and came.is_ok])
        for position in range(len(self.cohort)):
            self._settle(position)
            came = self.settled[position]
            if came is not None and came.is_ok:
                yield self._reply(position, came, weights.get(came.client_id, came.num_examples))
        self.finish()

    def _settle(self, position: int) -> None:
        while position not in self.settled:
            if not self.wants_no_more and self._asking.wait():
                continue
            timeout_s = self._asking.ctx.config.round.timeout_s
            late = None
            if self.num_ok < self.row.target and timeout_s is not None:
                late = Failure("round_timeout", f"no answer within the round's {timeout_s:g} s")
            self._open_for_more = False
            self._asking.cut(self, late)

    def _reply(self, position: int, came: Came, weight: float | None) -> Reply:
        """The reply as the strategy gets it: its file is mapped now, and only as long as somebody has it."""
        assert came.reply is not None and weight is not None
        opened = Opened()
        if self.request.reply_kind is not ReplyKind.METRICS:
            opened = self.ordering.reading.open(came.reply, self.ordering.receive.sent)
        facts = (came.metadata, came.metrics, opened.records)
        return Reply(self.request_id, position, came.client_id, opened.sets, weight, *facts)

    def _too_few(self, num_counted: int) -> SessionFailed:
        round_number = self.row.round_number
        settled = [came for _, came in sorted(self.settled.items())]
        failures = [came for came in settled if came is not None and came.failure is not None]
        where = f"round {round_number}"
        if self.row.number > 1:
            where += f", request {self.request_id} ({self.request.entry_point})"
        by = "round.required" if self._required <= self._asking.ctx.config.round.required else "by the strategy"
        message = f"{where}: {num_counted} usable updates, {self._required} are required ({by})"
        for came in failures[:3]:
            message += f"\n    {came.client_id}: {came.failure.message if came.failure else ''}"
        if len(failures) > 3:
            message += f"\n    … and {len(failures) - 3} more failed clients"
        return SessionFailed(
            message,
            hint=self._asking.when_mended,
            session_id=self.row.session_id,
            round_number=round_number,
        )


def _fits_nothing(request: Request) -> bool:
    """Whether weights are asked for that can be anything, where there is no global model."""
    has_likeness = isinstance(request.payload, Weights) or (request.sets and None not in request.sets.values())
    return request.reply_kind in _OF_WEIGHTS and not has_likeness


def _cannot_wait(request: Request) -> str:
    """What is wrong with what a request waits for; empty: nothing."""
    wait = request.wait
    if wait == "all":
        return ""
    if not isinstance(wait, int) or wait < 1:
        return f"{wait!r}, not for all replies or a number of them"
    return f"{wait} replies, and requires {request.required}" if wait < (request.required or 0) else ""
