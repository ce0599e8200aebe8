"""What a round asks of clients: its requests, their tasks in flight, and the replies that count."""

from __future__ import annotations

import dataclasses
import json
import logging
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fedpkg.controller.choosing import Choosing
from fedpkg.controller.context import SessionContext, remove_version
from fedpkg.controller.events import PhaseStarted, TaskEnded
from fedpkg.controller.gather import OPEN_BYTES, Gathering
from fedpkg.controller.metrics import Weight
from fedpkg.controller.seeds import step_rng
from fedpkg.dispatch.base import Failure, Task, TaskResult
from fedpkg.dispatch.collect import Refused, open_reply, read_reply
from fedpkg.errors import ModelFileError, SessionFailed, StoreError
from fedpkg.files import NO_SPACE, remove_tree, tree_checksum
from fedpkg.formats.model_file import write_model, write_sets
from fedpkg.log import event
from fedpkg.samplers.base import Sample
from fedpkg.stores.base import RequestRow, TaskRow, UpdateRow, ValidationRow
from fedpkg.stores.home import stored_path
from fedpkg.strategies.base import Payload, Reply, Request
from fedpkg.types import Json, ReplyKind
from fedpkg.weights.fold import BLOCK
from fedpkg.weights.weights import Weights

logger = logging.getLogger("fedpkg.controller")
_REST_OF_DELTAS = 2  # the rules from which on deltas have buffers and integers as well
_KINDS = (ReplyKind.UPDATE, ReplyKind.SETS, ReplyKind.METRICS)


class Asking:
    """The requests of one round, one after the other or several at once.

    What an earlier controller has recorded of the round is taken before anything is dispatched. Tasks of one client
    run one after the other, in the order of the requests: each begins with the state that the one before it left.

    Attributes:
        rows: the requests so far, as they were last recorded.
        last: number of examples and metadata of each client's last reply of weights that counts.
        states: versions of the clients' states after their last task that counts.
        replies: the files of all replies that count.
        waited_s: for clients.
        virtual_s: what the round has taken by the virtual clock.
    """

    def __init__(self, ctx: SessionContext, round_number: int, model: Weights, model_file: Path) -> None:
        session_id = ctx.session.session_id
        self.ctx = ctx
        self.round_number = round_number
        self.model = model  # the global model that the round starts from
        clients = ctx.store.list_clients(session_id)
        self.clients = {client.client_id: client for client in clients}
        self.choosing = Choosing(ctx, round_number, clients)
        self.rows: list[RequestRow] = []
        self.last: dict[str, tuple[float, Mapping[str, Json]]] = {}
        self.states: dict[str, str | None] = {}
        self.replies: list[Path] = []
        self.waited_s = self.virtual_s = 0.0
        self.takes_empty_rounds = ctx.traits.takes_empty_rounds
        self._model_file = model_file
        self._batch: list[Asked] = []
        self._batches = 0
        self._open: dict[tuple[int, int], int] = {}  # bytes of replies that are mapped and wait to be folded
        self._waiting: dict[str, deque[tuple[Asked, int]]] = {}  # by client: its tasks; the first may be in flight
        self._in_flight: dict[str, tuple[Asked, int]] = {}  # by task
        self._anew: set[str] = set()  # clients of whom a task has run: what is on record of later ones began elsewhere
        self._payloads: dict[int, tuple[Payload, Path]] = {}
        self._earlier = {row.request_id: row for row in ctx.store.list_requests(session_id, round_number=round_number)}
        self._recorded: dict[tuple[str, str], list[TaskRow]] = {}
        self._attempts: dict[tuple[str, str], int] = {}
        self._updates: dict[str, UpdateRow] = {}
        if self._earlier:
            self._updates = {row.task_id: row for row in ctx.store.list_updates(session_id, round_number)}
            tasks = ctx.store.list_tasks(session_id, round_number=round_number)
            for task in sorted(tasks, key=lambda task: task.attempt):
                self._attempts[task.client_id, task.entry_point] = task.attempt
                if task.request_id is not None:
                    self._recorded.setdefault((task.request_id, task.client_id), []).append(task)

    def ask(self, requests: Sequence[Request]) -> tuple[Asked, ...]:
        """Ask these at once; what was asked before is brought to its end.

        Raises:
            SessionFailed: a request cannot be asked, or too few usable replies came to one before.
            StoreError: the disk is full.
        """
        self.finish()
        self._gathering = Gathering(self.ctx.executor, timeout_s=self.ctx.config.round.timeout_s)
        self._batches += 1
        # All are chosen before any is put on record: where one finds nobody, none of them is asked.
        chosen = [self._chosen(request, len(self.rows) + place) for place, request in enumerate(requests, 1)]
        for request, sample in chosen:
            self._batch.append(self._begin(request, sample))
        if len(requests) > 1:  # who steps in, and when, would depend on when it is seen that somebody failed
            for asked in self._batch:
                asked.reserve.clear()
        num_tasks = sum(len(asked.cohort) for asked in self._batch)
        self.ctx.watch(PhaseStarted(self.round_number, "train", num_tasks, batch=self._batches))
        order = [(asked, position) for asked in self._batch for position in asked.first_asked]
        for asked, position in order:
            self._waiting.setdefault(asked.cohort[position], deque()).append((asked, position))
        for client_id in dict.fromkeys(asked.cohort[position] for asked, position in order):
            self._advance(client_id)
        return tuple(self._batch)

    def sample(self) -> tuple[str, ...]:
        """The clients that the session's sampler chooses; at each call others."""
        return self.choosing.sample().clients

    def finish(self) -> None:
        """Wait for all that was asked, and write down which replies count; a strategy may stop reading early."""
        for asked in self._batch:
            asked.finish()
        self.virtual_s += max((asked.virtual_s for asked in self._batch), default=0.0)
        for asked in self._batch:
            for position in asked.settled:  # a strategy that reads them later opens them again
                self.let_go(asked, position)
        self._batch = []
        for payload, path in self._payloads.values():
            if payload is not self.model:
                path.unlink(missing_ok=True)
        self._payloads.clear()

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
        return request, self._cohort(request)

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
        earlier = self._earlier.get(request.request_id)
        if self._batches > 1 and all(one.status == "failed" for one in self._earlier.values()):
            earlier = None  # nothing had counted when the round failed: after other answers, it may go on otherwise
        if earlier is not None:
            self._check_same(row, earlier)
        if earlier is None:
            self.ctx.store.record_request(row)
        elif earlier.status == "failed":  # those who failed are asked again, also if this attempt is killed
            row = dataclasses.replace(row, cohort=earlier.cohort, target=earlier.target)
            self.ctx.store.record_request(row)
        else:
            row = earlier
        self.rows.append(row)
        return Asked(self, request, row)

    def _check(self, request: Request) -> None:
        where = self._where(request.request_id)
        if request.reply_kind not in _KINDS:
            kinds = ", ".join(kind.value for kind in _KINDS)
            raise SessionFailed(f"{where}: a strategy asks for one of {kinds}, not {request.reply_kind.value}")
        if request.transforms is not None and request.reply_kind is not ReplyKind.UPDATE:
            raise SessionFailed(f"{where}: a strategy has transforms for {request.reply_kind.value}, not for an update")
        if request.download is not None and not isinstance(request.payload, Weights):
            raise SessionFailed(f"{where}: a strategy has transforms for a download of several sets")
        sets = [request.payload] if isinstance(request.payload, Weights) else list(request.payload.values())
        if not all(isinstance(one, Weights) for one in sets):
            raise SessionFailed(f"{where}: a payload is Weights, or several named Weights")
        if isinstance(request.clients, str):
            raise SessionFailed(f"{where}: the clients of a request are several ids, as ('{request.clients}',)")
        try:
            json.dumps(dict(request.parameters))
        except (TypeError, ValueError) as error:
            raise SessionFailed(f"{where}: parameters must be JSON: {error}") from error
        if request.reply_kind is ReplyKind.SETS and not request.sets:
            raise SessionFailed(f"{where}: a strategy asks for sets, but names none")
        self.ctx.package.spec.entry_point(request.entry_point)

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

    def _check_same(self, row: RequestRow, earlier: RequestRow) -> None:
        for field in ("number", "entry_point", "reply_kind", "client_group", "cohort"):
            if getattr(row, field) != getattr(earlier, field):
                raise SessionFailed(
                    f"{self._where(row.request_id)}: the strategy does not ask as it did before it was stopped "
                    f"({field}: {getattr(earlier, field)}, now {getattr(row, field)})",
                    hint="a step must depend on nothing but its state, its replies and ctx.rng; for a changed strategy "
                    "start a new run",
                )

    def _where(self, request_id: str) -> str:
        return f"round {self.round_number}" + (f", request {request_id}" if self.rows else "")

    # ---- tasks

    def _advance(self, client_id: str) -> None:
        """A client is free: settle what is known of its next tasks, up to one that must run."""
        waiting = self._waiting[client_id]
        while waiting:
            asked, position = waiting[0]
            task = self._task(asked, position)
            result, recorded = (None, None) if client_id in self._anew else self._from_record(asked, task)
            if asked.row.counted is not None and client_id not in asked.row.counted:
                failed = result is not None and result.failure is not None
                self.settle(asked, position, result if failed else None, recorded)
            elif result is not None:
                self.settle(asked, position, result, recorded)
            elif asked.wants_no_more:
                self.settle(asked, position, None)
            elif self._drops_out(asked, task):
                gone = Failure("dropout", "dropped out, as sampler.dropout has it")
                task = dataclasses.replace(task, sent_bytes=None)  # nothing travelled
                result = TaskResult(task, "failed", failure=gone, started_at=self.ctx.clock())
                self._attempts[client_id, task.entry_point] = task.attempt
                self.settle(asked, position, result, record(self.ctx, result))
            else:
                task = dataclasses.replace(task, model=self._payload(asked.payload))
                self._attempts[client_id, task.entry_point] = task.attempt
                self._anew.add(client_id)
                self._in_flight[task.task_id] = (asked, position)
                self._gathering.submit(task)
                return
            waiting.popleft()

    def _drops_out(self, asked: Asked, task: Task) -> bool:
        rows = self._recorded.get((asked.row.request_id, task.client_id), ())
        return self.choosing.drops_out(task.client_id, sum(row.failure == "dropout" for row in rows))

    def _task(self, asked: Asked, position: int) -> Task:
        request, payload = asked.request, asked.payload
        client = self.clients[asked.cohort[position]]
        if client.client_id in self.states:
            client = dataclasses.replace(client, state_version=self.states[client.client_id])
        template = payload if isinstance(payload, Weights) else self.model
        rest = request.rest and request.reply == "delta" and self.ctx.session.rules >= _REST_OF_DELTAS
        if request.reply != "weights" and not rest:
            template = template.filter(frozenset(template.parameters).__contains__)
        return self.ctx.task(
            client,
            round_number=self.round_number,
            position=position,
            num_clients=len(self.clients),
            entry_point=request.entry_point,
            reply_kind=request.reply_kind,
            model=None,
            template=template,
            input_sets=() if isinstance(payload, Weights) else tuple(payload),
            sets=request.sets,
            parameters=dict(request.parameters),
            content=request.reply,
            transforms=request.transforms,
            sent_bytes=asked.sent_bytes,
            use=request.use,
            request_id=request.request_id,
            request_number=asked.row.number,
            attempt=self._attempts.get((client.client_id, request.entry_point), 0) + 1,
            is_first=client.client_id not in self.states,
        )

    def _payload(self, payload: Payload) -> Path:
        """The file that a request's tasks get: the global model's own, or one that is written for it.

        It is made again when the round is resumed, of the same bytes: the strategy's state is all that is kept.

        Raises:
            ModelFileError: the session's form of model files cannot hold it.
            StoreError: the disk is full.
        """
        if payload is self.model:
            return self._model_file
        if id(payload) in self._payloads:
            return self._payloads[id(payload)][1]
        name = f".payload-{self._batches}-{len(self._payloads) + 1}{self.ctx.form.suffix}"
        path = self.ctx.round_folder(self.round_number) / name  # no client's id begins with a dot
        try:
            if isinstance(payload, Weights):
                write_model(path, payload, self.ctx.form)
            else:
                write_sets(path, payload, self.ctx.form)
        except ModelFileError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            if error.__cause__.errno in NO_SPACE:
                raise _disk_is_full(self.ctx, error.message) from error
            resume = f"fedpkg session resume {self.ctx.session.session_id}"
            raise StoreError(error.message, hint=f"when the cause is mended: {resume}", path=str(path)) from error
        self._payloads[id(payload)] = (payload, path)
        return path

    def sent(self, request: Request) -> tuple[Weights, int]:
        """What clients get of a payload that is transformed on its way, and the bytes that travel to each."""
        assert request.download is not None and isinstance(request.payload, Weights)
        payload = request.payload
        seed = int(step_rng(self.ctx.session.seed, self.round_number, "download").integers(1 << 62))
        content = request.download.encode(payload, payload, seed=seed, is_difference=True).content
        folder = self.ctx.round_folder(self.round_number)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder, prefix=".payload-") as file:
                file.write(content)
                file.flush()
                received, _ = request.download.decode(Path(file.name), payload, is_difference=True)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            raise _disk_is_full(self.ctx, f"{folder}: {error.strerror}") from error
        if name := received.first_non_finite(payload):
            raise SessionFailed(
                f"{self._where(request.request_id)}: tensor '{name}' is not finite after the transforms of the download"
            )
        return received, len(content)

    def _from_record(self, asked: Asked, task: Task) -> tuple[TaskResult | None, TaskRow | None]:
        """The result that is on record; None if there is none, or its files are not as they were recorded."""
        rows = [
            row
            for row in self._recorded.get((asked.row.request_id, task.client_id), ())
            if row.status == "ok" or row.started_at >= asked.row.started_at
        ]
        recorded = rows[-1] if rows else None
        if recorded is None or recorded.status == "cancelled":
            return None, None
        if recorded.status == "failed":
            failure = Failure(recorded.failure or "unknown", recorded.message or "")
            return TaskResult(task, "failed", failure=failure), recorded
        update = self._updates.get(recorded.task_id)
        damage, folder = "its reply is not on record", self.ctx.reply_folder(recorded)
        if update is not None:
            damage = damage_of_state(self.ctx, recorded) or _damage(folder, update.checksum, "reply")
        next_state = task.next_state
        if recorded.state_version is not None:
            next_state = self.ctx.client_folder(task.client_id) / recorded.state_version
        try:
            if update is not None and not damage:
                reply = read_reply(task, folder / Path(update.path).name, size_bytes=update.size_bytes)
        except (OSError, Refused) as error:
            damage = str(error)
        if damage or update is None:
            disown(self.ctx, recorded, damage)
            return None, None
        result = TaskResult(
            dataclasses.replace(task, task_id=recorded.task_id, next_state=next_state),
            "ok",
            keeps_state=recorded.state_version is not None,
            reply=reply.path,
            reply_bytes=reply.size_bytes,
            weights=reply.weights,
            sets=reply.sets,
            num_examples=update.num_examples,
            metadata=reply.metadata,
            metrics=reply.metrics,
        )
        return result, recorded

    def wait(self, wanted: tuple[int, int]) -> bool:
        """Wait for one more result, of any request; False when there is none left, or no time.

        ``wanted``: the request and position whose turn it is.
        """
        before = time.monotonic()
        result = self._gathering.next()
        self.waited_s += time.monotonic() - before
        if result is not None:
            self._take(result, wanted)
        return result is not None

    def cut(self, asked: Asked, late: Failure | None) -> None:
        """Settle all that is not, of one request: its tasks are ended, or not begun."""
        task_ids = [task_id for task_id, (owner, _) in self._in_flight.items() if owner is asked]
        for result in self._gathering.cut(late=late, only=task_ids):
            self._take(result)
        for position in range(len(asked.cohort)):
            if position not in asked.settled:  # it waits for its client to have done something else, or for its turn
                waiting = self._waiting.get(asked.cohort[position], deque())
                if (asked, position) in waiting:
                    waiting.remove((asked, position))
                missed = None
                if late is not None:
                    missed = TaskResult(self._task(asked, position), "failed", failure=late, started_at=time.time())
                    record(self.ctx, missed)
                self.settle(asked, position, missed)

    def _take(self, result: TaskResult, wanted: tuple[int, int] | None = None) -> None:
        """A result has arrived: record it, and let its client go on."""
        task = result.task
        asked, position = self._in_flight.pop(task.task_id)
        if result.status == "ok" and result.num_examples is None:
            result = dataclasses.replace(result, num_examples=self.reported_weight(result)[0])
        row = record(self.ctx, result)
        if result.converted is not None and "converted" not in self.ctx.said:
            self.ctx.said.add("converted")
            about = f"{task.client_id} replies in another precision: {result.converted}. Such replies are converted to "
            about += "the global model's; this is said once"
            event(logger, logging.WARNING, "reply.converted", round=self.round_number, about=about)
        self.settle(asked, position, result, row, wanted=wanted)
        self._waiting[task.client_id].popleft()
        self._advance(task.client_id)

    def settle(
        self,
        asked: Asked,
        position: int,
        result: TaskResult | None,
        row: TaskRow | None = None,
        *,
        wanted: tuple[int, int] | None = None,
    ) -> None:
        """Note a result. Few replies stay open until it is their turn (``wanted``); others are opened again."""
        place = (asked.row.number, position)
        if result is not None and weights_of(result):
            is_much = len(self._open) >= BLOCK or sum(self._open.values()) + result.reply_bytes > OPEN_BYTES
            if is_much and place != wanted:
                result = result.closed()
            else:
                self._open[place] = result.reply_bytes
        asked.settled[position] = result
        if row is not None:
            asked.bytes_down += row.bytes_down
            asked.bytes_up += row.bytes_up
        if result is not None and result.status == "ok":
            asked.num_ok += 1
            client_id = result.task.client_id
            self.states[client_id] = state_version(result)
            if asked.request.reply_kind is not ReplyKind.METRICS:
                self.last[client_id] = (result.num_examples or 0.0, result.metadata)
            if result.reply is not None:
                self.replies.append(result.reply)
        elif result is not None and asked.reserve:  # the next by the virtual clock takes its place
            position = asked.reserve.popleft()
            waiting = self._waiting.setdefault(asked.cohort[position], deque())
            waiting.append((asked, position))
            if len(waiting) == 1:
                self._advance(asked.cohort[position])

    def reported_weight(self, result: TaskResult) -> Weight:
        """What metrics say that they weigh."""
        return self.ctx.reported_weight(self.clients[result.task.client_id], result.metrics, result.metadata)

    def weights_of_metrics(self, results: Sequence[TaskResult]) -> dict[str, float]:
        """What the replies of one request weigh, by client: which source they have depends on all of them."""
        ids = [result.task.client_id for result in results]
        reported = [self.reported_weight(result) for result in results]
        weights = self.ctx.weights_of_metrics([self.clients[client_id] for client_id in ids], reported)
        return {client_id: weight for client_id, (weight, _) in zip(ids, weights, strict=True)}

    def let_go(self, asked: Asked, position: int) -> None:
        """A reply has been folded: its mapping may go."""
        self._open.pop((asked.row.number, position), None)
        result = asked.settled[position]
        asked.settled[position] = None if result is None else result.closed()

    def note(self, row: RequestRow) -> None:
        """Write down how a request was answered."""
        self.ctx.store.record_request(row)
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
            self.payload, self.sent_bytes = asking.sent(request)
        self.cohort = tuple(row.cohort)
        self.settled: dict[int, TaskResult | None] = {}  # None: it was not asked in the end
        self.num_ok = 0
        self.bytes_down = self.bytes_up = 0
        self._asking = asking
        self._open_for_more = True
        self._started = time.monotonic()
        self._replies = self._in_order()
        self._durations = asking.choosing.durations(self.cohort, request.payload, row.number)
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
        counted = [result.task.client_id for result in results if result is not None and result.status == "ok"]
        if self.row.counted == counted:
            return
        row = dataclasses.replace(
            self.row,
            num_ok=len(counted),
            num_failed=sum(result is not None and result.status == "failed" for result in results),
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
        return min(self._asking.ctx.config.round.required, len(self.cohort))

    def _in_order(self) -> Iterator[Reply]:
        weights: Mapping[str, float] = {}
        if self.request.reply_kind is ReplyKind.METRICS:
            self.finish()
            results = [self.settled[position] for position in range(len(self.cohort))]
            weights = self._asking.weights_of_metrics([one for one in results if one and one.status == "ok"])
        for position in range(len(self.cohort)):
            self._settle(position)
            result = self.settled[position]
            if result is not None and result.status == "ok":
                yield self._reply(result, weights.get(result.task.client_id, result.num_examples))
                self._asking.let_go(self, position)
            del result  # while others are waited for, nothing of it shall stay in memory
        self.finish()

    def _settle(self, position: int) -> None:
        while position not in self.settled:
            if not self.wants_no_more and self._asking.wait((self.row.number, position)):
                continue
            timeout_s = self._asking.ctx.config.round.timeout_s
            late = None
            if self.num_ok < self.row.target and timeout_s is not None:
                late = Failure("round_timeout", f"no answer within the round's {timeout_s:g} s")
            self._open_for_more = False
            self._asking.cut(self, late)

    def _reply(self, result: TaskResult, weight: float | None) -> Reply:
        assert result.reply is not None and weight is not None
        task, sets = result.task, weights_of(result)
        if task.reply_kind is not ReplyKind.METRICS and not sets:  # let go of, to keep few files open
            sets = open_reply(task, result.reply)
        return Reply(
            self.request_id,
            task.position,
            task.client_id,
            sets,
            weight,
            result.metadata,
            result.metrics,
        )

    def _too_few(self, num_counted: int) -> SessionFailed:
        round_number = self.row.round_number
        results = [result for _, result in sorted(self.settled.items())]
        failures = [result for result in results if result is not None and result.failure is not None]
        where = f"round {round_number}"
        if self.row.number > 1:
            where += f", request {self.request_id} ({self.request.entry_point})"
        by = "round.required" if self._required <= self._asking.ctx.config.round.required else "by the strategy"
        message = f"{where}: {num_counted} usable updates, {self._required} are required ({by})"
        for result in failures[:3]:
            message += f"\n    {result.task.client_id}: {result.failure.message if result.failure else ''}"
        if len(failures) > 3:
            message += f"\n    … and {len(failures) - 3} more failed clients"
        return SessionFailed(
            message,
            hint=self._asking.when_mended,
            session_id=self.row.session_id,
            round_number=round_number,
        )


def weights_of(result: TaskResult) -> Mapping[str, Weights]:
    """The sets of a reply, while it is open; an update is one without a name."""
    return result.sets if result.weights is None else {"": result.weights}


def _bytes_down(task: Task) -> int:
    """What travelled to a client for this task."""
    if task.sent_bytes is not None:
        return task.sent_bytes
    return 0 if task.model is None else task.model.stat().st_size


def state_version(result: TaskResult) -> str | None:
    """The version of its client's state that a task left; None: none, the next task starts from the package."""
    return result.task.next_state.name if result.keeps_state else None


def record(ctx: SessionContext, result: TaskResult, validation: ValidationRow | None = None) -> TaskRow:
    """Write down what became of a task, and tell those who watch.

    Raises:
        StoreError: the task failed on a full disk. That may not be its client's fault, and without that client the
            model would be another one: nothing is written down, and resuming runs the task again.
    """
    task = result.task
    if result.failure is not None and result.failure.kind == "no_space":
        what = f"{task.entry_point} of {task.client_id} in round {task.round_number} failed"
        raise _disk_is_full(ctx, f"{what} ({result.failure.message})")
    row = TaskRow(
        task_id=task.task_id,
        session_id=task.session_id,
        round_number=task.round_number,
        client_id=task.client_id,
        position=task.position,
        entry_point=task.entry_point,
        attempt=task.attempt,
        status=result.status,
        failure=result.failure.kind if result.failure else None,
        message=result.failure.message if result.failure else None,
        exit_code=result.exit_code,
        signal=result.signal,
        started_at=result.started_at,
        wall_s=result.wall_s,
        folder=stored_path(task.folder, ctx.home),
        command=result.command,
        log_tail=result.log_tail,
        state_version=state_version(result),
        state_checksum=result.state_checksum,
        phases=dict(result.phases),
        request_id=task.request_id,
        bytes_down=_bytes_down(task),
        bytes_up=result.reply_bytes if result.sent_bytes is None else result.sent_bytes,
    )
    update = None
    if result.status == "ok" and result.num_examples is not None and result.reply is not None:
        update = UpdateRow(
            task_id=task.task_id,
            path=stored_path(result.reply, ctx.home),
            size_bytes=result.reply_bytes,
            num_examples=result.num_examples,
            metadata=dict(result.metadata),
            checksum=result.reply_checksum,
        )
    ctx.store.record_task(row, update=update, validation=validation)
    ctx.watch(TaskEnded(result))
    return row


def damage_of_state(ctx: SessionContext, row: TaskRow) -> str:
    """What is wrong with the state that a recorded task left; empty: nothing."""
    if row.state_version is None:
        return ""
    return _damage(ctx.client_folder(row.client_id) / row.state_version, row.state_checksum, "state")


def _damage(folder: Path, checksum: str, what: str) -> str:
    """Uncommitted files are not synchronised to the disk: after a power loss they may be empty, partial or zero."""
    if not checksum:
        return f"its {what} was recorded without a checksum"
    try:
        return "" if tree_checksum(folder) == checksum else f"its {what} has another checksum than when it was recorded"
    except OSError as error:
        return f"its {what} cannot be read: {error.strerror}"


def disown(ctx: SessionContext, row: TaskRow, damage: str) -> None:
    """Take back that a task was answered: what it left is damaged, and goes; the task runs again."""
    event(logger, logging.WARNING, "task.again", task=row.task_id, reason=damage)
    reason = f"run again, because {damage}"
    ctx.store.record_task(dataclasses.replace(row, status="cancelled", message=reason, state_version=None))
    if row.state_version is not None:
        remove_version(ctx.client_folder(row.client_id) / row.state_version)
    remove_tree(ctx.reply_folder(row))


def _disk_is_full(ctx: SessionContext, what: str) -> StoreError:
    session_id = ctx.session.session_id
    return StoreError(
        f"the disk of the home {ctx.home} is full: {what}",
        hint=f"free space (`fedpkg home prune` helps), then `fedpkg session resume {session_id}`",
        session_id=session_id,
        path=str(ctx.home),
    )
