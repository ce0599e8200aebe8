"""One round: ask, dispatch, fold, commit, then validate. A round that was begun before is taken up where it stopped."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from fedpkg.controller.context import SessionContext
from fedpkg.controller.events import PhaseStarted, RoundFinished, TaskEnded
from fedpkg.controller.gather import OPEN_BYTES, Gathering
from fedpkg.controller.metrics import metrics_weight, weighted_average
from fedpkg.controller.seeds import step_rng
from fedpkg.controller.state import encode
from fedpkg.controller.trail import buffer_keys, put_weights, store_model
from fedpkg.dispatch.base import Failure, Task, TaskResult
from fedpkg.dispatch.collect import Refused, open_reply, read_reply
from fedpkg.errors import AggregationError, ModelFileError, NotFound, SessionFailed, StoreError
from fedpkg.files import remove_tree
from fedpkg.formats.model_file import write_model, write_sets
from fedpkg.log import event
from fedpkg.samplers.base import Sample
from fedpkg.stores.base import ClientRow, ModelRow, RoundRow, TaskRow, UpdateRow, ValidationRow
from fedpkg.strategies.base import Reply, Request, State
from fedpkg.types import ReplyKind
from fedpkg.weights.fold import BLOCK
from fedpkg.weights.weights import Weights

logger = logging.getLogger("fedpkg.controller")


def train_round(ctx: SessionContext, round_number: int, state: State) -> tuple[State, RoundRow]:
    """Take the session one step further: from the state after the last round to the state after this one.

    The returned row is committed as ``aggregated``; `finish_round` closes the round.

    Raises:
        SessionFailed: fewer usable updates than ``round.required``; the round is recorded as failed.
    """
    model = state["model"]
    state, requests = ctx.strategy.ask(state, step_rng(ctx.session.seed, round_number, "ask"))
    if len(requests) != 1:
        raise SessionFailed(f"round {round_number}: a strategy asks one request a round, not {len(requests)}")
    return _Training(ctx, round_number, requests[0], model).run(state)


class _Training:
    """The training phase of one round."""

    def __init__(self, ctx: SessionContext, round_number: int, request: Request, model: Weights) -> None:
        if request.reply_kind not in (ReplyKind.UPDATE, ReplyKind.SETS):
            kind = request.reply_kind.value
            raise SessionFailed(f"round {round_number}: a strategy asks for updates or sets, not {kind}")
        if request.reply_kind is ReplyKind.SETS and not request.sets:
            raise SessionFailed(f"round {round_number}: a strategy asks for sets, but names none")
        self.ctx = ctx
        self.round_number = round_number
        self.request = request
        self.model = model  # the global model that the round starts from
        self.clients = {client.client_id: client for client in ctx.store.list_clients(ctx.session.session_id)}
        self.settled: dict[int, TaskResult] = {}
        self.open: dict[int, int] = {}  # bytes of the replies, by position, that are mapped and wait to be folded
        self.num_ok = 0
        self.waited_s = 0.0
        self.started = time.monotonic()
        earlier = _earlier_round(ctx, round_number)
        retry = earlier is not None and earlier.status == "failed"
        if earlier is None:
            sample = self._sample()
            row = RoundRow(
                session_id=ctx.session.session_id,
                round_number=round_number,
                cohort=list(sample.clients),
                target=sample.target,
                started_at=ctx.clock(),
            )
        else:
            row = dataclasses.replace(earlier, status="training", error=None)
            if retry:  # those who failed are asked again, also if this attempt is killed: see `recorded`
                row = dataclasses.replace(row, counted=None, started_at=ctx.clock())
                ctx.store.set_counted(row.session_id, round_number, None)
        self.row = ctx.store.begin_round(row)
        self.recorded = {
            client_id: task
            for client_id, task in _latest_tasks(ctx, round_number, request.entry_point).items()
            if task.status == "ok" or task.started_at >= row.started_at
        }

    def run(self, state: State) -> tuple[State, RoundRow]:
        ctx, row = self.ctx, self.row
        model = _current_model(ctx, self.round_number - 1)
        ctx.watch(PhaseStarted(self.round_number, "train", len(row.cohort)))
        tasks = self._tasks(self._payload(ctx.models.path(model.digest, model.suffix)))
        self.gathering = Gathering(ctx.executor, tasks, timeout_s=ctx.config.round.timeout_s)
        replies = self._replies()
        try:
            state = ctx.strategy.tell(state, replies)
        except AggregationError as error:
            self._record_failed(error.message)
            raise
        for _ in replies:  # a strategy may stop reading early; which replies count is still written down
            pass
        told_s = time.monotonic() - self.started
        return state, self._commit(state, model, phases={"train": self.waited_s, "fold": told_s - self.waited_s})

    def _sample(self) -> Sample:
        if self.request.clients is not None:
            return Sample(self.request.clients, target=len(self.request.clients))
        return self.ctx.sampler.sample(list(self.clients), step_rng(self.ctx.session.seed, self.round_number, "sample"))

    def _payload(self, model: Path) -> Path:
        """The file that the tasks get: the global model's own, or one that is written for this round.

        It is made again when the round is resumed, of the same bytes: the strategy's state is all that is kept.

        Raises:
            ModelFileError: the session's form of model files cannot hold it.
            StoreError: the disk is full.
        """
        payload, path = self.request.payload, self._payload_file()
        if payload is self.model:
            return model
        try:
            if isinstance(payload, Weights):
                write_model(path, payload, self.ctx.form)
            else:
                write_sets(path, payload, self.ctx.form)
        except ModelFileError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            raise StoreError(
                error.message,
                hint=f"free space (`fedpkg home prune` helps), then `fedpkg session resume {self.row.session_id}`",
                session_id=self.row.session_id,
                path=str(path),
            ) from error
        return path

    def _payload_file(self) -> Path:
        folder = self.ctx.round_folder(self.round_number)
        return folder / f".payload{self.ctx.form.suffix}"  # no client's id begins with a dot

    def _tasks(self, model: Path) -> list[Task]:
        """The tasks that must run; what an earlier controller has recorded of this round is settled already."""
        tasks = []
        payload = self.request.payload
        for position, client_id in enumerate(self.row.cohort):
            task = self.ctx.task(
                self.clients[client_id],
                round_number=self.round_number,
                position=position,
                num_clients=len(self.clients),
                entry_point=self.request.entry_point,
                reply_kind=self.request.reply_kind,
                model=model,
                template=payload if isinstance(payload, Weights) else self.model,
                input_sets=() if isinstance(payload, Weights) else tuple(payload),
                sets=self.request.sets,
                parameters=dict(self.request.parameters),
            )
            result = self._from_record(task)
            if self.row.counted is not None and client_id not in self.row.counted:
                self._settle(result if result is not None and result.failure else TaskResult(task, "cancelled"))
            elif result is not None:
                self._settle(result)
            else:
                tasks.append(task)
        return tasks

    def _from_record(self, task: Task) -> TaskResult | None:
        """The result that is on record; None if there is none, or its file did not survive."""
        recorded = self.recorded.get(task.client_id)
        if recorded is None or recorded.status == "cancelled":
            return None
        if recorded.status == "failed":
            return TaskResult(task, "failed", failure=Failure(recorded.failure or "unknown", recorded.message or ""))
        update = self._updates().get(recorded.task_id)
        if update is None:
            return None
        next_state = task.next_state
        if recorded.state_version is not None:
            next_state = self.ctx.client_folder(task.client_id) / recorded.state_version
            if not next_state.is_dir():
                return None
        try:
            if Path(update.path).stat().st_size != update.size_bytes:
                return None
            reply = read_reply(task, Path(update.path), size_bytes=update.size_bytes)
        except (OSError, Refused):
            return None
        return TaskResult(
            dataclasses.replace(task, task_id=recorded.task_id, next_state=next_state),
            "ok",
            keeps_state=recorded.state_version is not None,
            reply=reply.path,
            reply_bytes=reply.size_bytes,
            weights=reply.weights,
            sets=reply.sets,
            num_examples=reply.num_examples,
            metadata=reply.metadata,
        )

    def _updates(self) -> dict[str, UpdateRow]:
        rows = self.ctx.store.list_updates(self.row.session_id, self.round_number)
        return {update.task_id: update for update in rows}

    def _settle(self, result: TaskResult, *, wanted: int | None = None) -> None:
        """Note a result. Few replies stay open until it is their turn (``wanted``); others are opened again."""
        position = result.task.position
        if _weights_of(result):
            is_much = len(self.open) >= BLOCK or sum(self.open.values()) + result.reply_bytes > OPEN_BYTES
            if is_much and position != wanted:
                result = result.closed()
            else:
                self.open[position] = result.reply_bytes
        self.settled[position] = result
        self.num_ok += result.status == "ok"

    def _replies(self) -> Iterator[Reply]:
        """Counted replies in cohort order, each as soon as it and all before it are settled; then the count is written.

        The first ``target`` answers count, and those within the round's time.
        """
        open_for_more = True
        for position in range(len(self.row.cohort)):
            while position not in self.settled:
                if open_for_more and self.num_ok < self.row.target and (result := self._wait()) is not None:
                    record(self.ctx, result)
                    self._settle(result, wanted=position)
                else:
                    open_for_more = False
                    self._cut(late=self.num_ok < self.row.target)
            result = self.settled[position]
            if result.status == "ok":
                yield self._reply(result)
                self.open.pop(position, None)  # the strategy has folded it: let go of the mapping
                self.settled[position] = result.closed()
            del result  # while others are waited for, nothing of it shall stay in memory
        counted = [result.task.client_id for _, result in sorted(self.settled.items()) if result.status == "ok"]
        if len(counted) < self.ctx.config.round.required:
            self._fail(len(counted))
        self.ctx.store.set_counted(self.row.session_id, self.round_number, counted)

    def _reply(self, result: TaskResult) -> Reply:
        assert result.reply is not None and result.num_examples is not None
        task = result.task
        sets = _weights_of(result) or open_reply(task, result.reply)  # let go of, to keep few files open
        return Reply(self.request.request_id, task.position, task.client_id, sets, result.num_examples, result.metadata)

    def _wait(self) -> TaskResult | None:
        before = time.monotonic()
        result = self.gathering.next()
        self.waited_s += time.monotonic() - before
        return result

    def _cut(self, *, late: bool) -> None:
        timeout_s = self.ctx.config.round.timeout_s
        failure = None
        if late and timeout_s is not None:
            failure = Failure("round_timeout", f"no answer within the round's {timeout_s:g} s")
        for result in self.gathering.cut(late=failure):
            record(self.ctx, result)
            self._settle(result)

    def _fail(self, num_counted: int) -> None:
        required = self.ctx.config.round.required
        failures = [result for _, result in sorted(self.settled.items()) if result.failure is not None]
        message = f"round {self.round_number}: {num_counted} usable updates, {required} are required (round.required)"
        for result in failures[:3]:
            message += f"\n    {result.task.client_id}: {result.failure.message if result.failure else ''}"
        if len(failures) > 3:
            message += f"\n    … and {len(failures) - 3} more failed clients"
        self._record_failed(message.splitlines()[0])
        session_id = self.row.session_id
        raise SessionFailed(
            message,
            hint=f"look at `fedpkg session show {session_id} --round {self.round_number}`; if the cause lies outside "
            f"the package, mend it and `fedpkg session resume {session_id}`; for a changed package start a new run",
            session_id=session_id,
            round_number=self.round_number,
        )

    def _record_failed(self, error: str) -> None:
        """The round ends without a model; resuming asks those who failed again."""
        row = dataclasses.replace(
            self.row,
            status="failed",
            finished_at=self.ctx.clock(),
            num_ok=self.num_ok,
            num_failed=sum(result.status == "failed" for result in self.settled.values()),
            error=error,
        )
        self.ctx.store.finish_round(row)

    def _commit(self, state: State, parent: ModelRow, *, phases: dict[str, float]) -> RoundRow:
        ctx, row = self.ctx, self.row
        before = time.monotonic()
        ok = [result for _, result in sorted(self.settled.items()) if result.status == "ok"]
        examples = {result.task.client_id: result.num_examples for result in ok}
        model = store_model(
            ctx.models,
            ctx.form,
            state["model"],
            session_id=row.session_id,
            round_number=self.round_number,
            created_at=ctx.clock(),
            parent_id=parent.model_id,
            contributors=[{"client_id": name, "num_examples": number} for name, number in examples.items()],
        )

        # Where a model has positions for names, a state of some of its tensors ("0", "3") keeps theirs.
        form = ctx.form.of_state

        def put(weights: Weights) -> tuple[str, list[str]]:
            if weights is state["model"]:
                return model.digest, model.buffers
            return put_weights(ctx.models, form, weights)[0], buffer_keys(weights, form)

        saved = encode(state, put)
        row = dataclasses.replace(
            row,
            status="aggregated",
            counted=list(examples),
            num_ok=len(ok),
            num_failed=sum(result.status == "failed" for result in self.settled.values()),
            num_examples=float(sum(number or 0.0 for number in examples.values())),
            train_metrics=weighted_average((dict(result.metadata), result.num_examples or 0.0) for result in ok),
            model_id=model.model_id,
            phases=phases,
        )
        versions = {result.task.client_id: state_version(result) for result in ok}
        ctx.save_states(versions)
        clients = {name: (versions[name], examples[name]) for name in versions}
        ctx.store.commit_round(row, model, strategy_state=(self.round_number, saved), clients=clients)
        ctx.forget_states(versions)
        remove_tree(self._payload_file())
        if not ctx.config.keep.updates:
            for result in ok:
                if result.reply is not None:
                    remove_tree(result.reply.parent)
        # The row was committed before its own cost was known; `finish_round` writes these.
        now = time.monotonic()
        return dataclasses.replace(row, wall_s=now - self.started, phases={**phases, "commit": now - before})


def _weights_of(result: TaskResult) -> Mapping[str, Weights]:
    """The sets of a reply, while it is open; an update is one without a name."""
    return result.sets if result.weights is None else {"": result.weights}


def finish_round(ctx: SessionContext, row: RoundRow) -> RoundRow:
    """Validate an aggregated round's model if that is due, and close the round."""
    round_number = row.round_number
    before = time.monotonic()
    metrics: dict[str, float] = {}
    versions: dict[str, str | None] = {}
    model = _current_model(ctx, round_number)
    if is_validation_due(ctx, round_number):
        metrics, versions = _validate(ctx, row, model)
    validate_s = time.monotonic() - before
    row = dataclasses.replace(
        row,
        status="finished",
        finished_at=ctx.clock(),
        wall_s=(row.wall_s or 0.0) + validate_s,
        metrics=metrics,
        phases={**row.phases, "validate": validate_s},
    )
    last = {client.client_id: client.last_num_examples for client in ctx.store.list_clients(row.session_id)}
    ctx.save_states(versions)
    ctx.store.finish_round(row, clients={name: (version, last[name]) for name, version in versions.items()})
    ctx.forget_states(versions)
    event(
        logger,
        logging.INFO,
        "round.finished",
        round=round_number,
        ok=row.num_ok,
        failed=row.num_failed,
        examples=row.num_examples,
        seconds=row.wall_s or 0.0,
    )
    ctx.watch(RoundFinished(row, model))
    return row


def is_validation_due(ctx: SessionContext, round_number: int) -> bool:
    """Every k-th round and the last one, for packages that can validate."""
    every = ctx.config.validation.every
    if every == 0 or "validate" not in ctx.package.spec.entry_points:
        return False
    return round_number % every == 0 or round_number == ctx.config.rounds


def _validate(ctx: SessionContext, row: RoundRow, model: ModelRow) -> tuple[dict[str, float], dict[str, str | None]]:
    """Ask clients to validate the round's global model; averaged metrics, and the state versions that it left."""
    clients = ctx.store.list_clients(row.session_id)
    chosen = _validation_cohort(ctx, clients, row.round_number)
    ctx.watch(PhaseStarted(row.round_number, "validate", len(chosen)))
    values = {
        validation.client_id: (validation.metrics, validation.weight)
        for validation in ctx.store.list_validations(row.session_id, round_number=row.round_number)
    }
    versions: dict[str, str | None] = {
        task.client_id: task.state_version
        for task in ctx.store.list_tasks(row.session_id, round_number=row.round_number, entry_point="validate")
        if task.status == "ok" and task.state_version is not None
    }
    tasks = [
        ctx.task(
            client,
            round_number=row.round_number,
            position=client.position,
            num_clients=len(clients),
            entry_point="validate",
            reply_kind=ReplyKind.METRICS,
            model=ctx.models.path(model.digest, model.suffix),
        )
        for client in chosen
        if client.client_id not in values
    ]
    last = {client.client_id: client.last_num_examples for client in clients}
    gathering = Gathering(ctx.executor, tasks, timeout_s=ctx.config.round.timeout_s)
    while (result := gathering.next()) is not None:
        validation = None
        if result.status == "ok":
            client_id = result.task.client_id
            weight, source = metrics_weight(result.metrics, result.metadata, last[client_id])
            values[client_id] = (result.metrics, weight)
            if result.keeps_state:
                versions[client_id] = state_version(result)
            validation = ValidationRow(
                task_id=result.task.task_id,
                session_id=row.session_id,
                round_number=row.round_number,
                model_id=model.model_id,
                client_id=client_id,
                metrics=result.metrics,
                weight=weight,
                weight_source=source,
            )
        record(ctx, result, validation)
        if result.reply is not None:
            remove_tree(result.reply.parent)  # the metrics are in the store
    for result in gathering.cut(late=Failure("round_timeout", "no answer within the round's time")):
        record(ctx, result)
    # In the order of the clients, so that the average does not depend on who was first.
    order = [client.client_id for client in clients if client.client_id in values]
    return weighted_average(values[name] for name in order), versions


def _validation_cohort(ctx: SessionContext, clients: list[ClientRow], round_number: int) -> list[ClientRow]:
    count = max(1, math.ceil(ctx.config.validation.fraction * len(clients)))
    if count >= len(clients):
        return clients
    rng = step_rng(ctx.session.seed, round_number, "validate")
    return [clients[index] for index in sorted(rng.choice(len(clients), size=count, replace=False))]


def state_version(result: TaskResult) -> str | None:
    """The version of its client's state that a task left; None: none, the next task starts from the package."""
    return result.task.next_state.name if result.keeps_state else None


def record(ctx: SessionContext, result: TaskResult, validation: ValidationRow | None = None) -> None:
    """Write down what became of a task, and tell those who watch.

    Raises:
        StoreError: the task failed on a full disk. That may not be its client's fault, and without that client the
            model would be another one: nothing is written down, and resuming runs the task again.
    """
    task = result.task
    if result.failure is not None and result.failure.kind == "no_space":
        raise StoreError(
            f"the disk of the home {ctx.home} is full: {task.entry_point} of {task.client_id} in round "
            f"{task.round_number} failed ({result.failure.message})",
            hint=f"free space (`fedpkg home prune` helps), then `fedpkg session resume {task.session_id}`",
            session_id=task.session_id,
            path=str(ctx.home),
        )
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
        folder=str(task.folder),
        command=result.command,
        log_tail=result.log_tail,
        state_version=state_version(result),
        phases=dict(result.phases),
    )
    update = None
    if result.status == "ok" and result.num_examples is not None and result.reply is not None:
        update = UpdateRow(
            task_id=task.task_id,
            path=str(result.reply),
            size_bytes=result.reply_bytes,
            num_examples=result.num_examples,
            metadata=dict(result.metadata),
        )
    ctx.store.record_task(row, update=update, validation=validation)
    ctx.watch(TaskEnded(result))


def _current_model(ctx: SessionContext, round_number: int) -> ModelRow:
    return ctx.store.get_model(f"{ctx.session.session_id}.{round_number}")


def _earlier_round(ctx: SessionContext, round_number: int) -> RoundRow | None:
    try:
        return ctx.store.get_round(ctx.session.session_id, round_number)
    except NotFound:
        return None


def _latest_tasks(ctx: SessionContext, round_number: int, entry_point: str) -> dict[str, TaskRow]:
    rows = ctx.store.list_tasks(ctx.session.session_id, round_number=round_number, entry_point=entry_point)
    return {task.client_id: task for task in sorted(rows, key=lambda task: task.attempt)}
