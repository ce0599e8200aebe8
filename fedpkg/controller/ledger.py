"""The records of a round: its requests, tasks and replies, including those of an earlier controller."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fedpkg.controller.clusters import Clusters
from fedpkg.controller.context import SessionContext
from fedpkg.controller.events import TaskEnded
from fedpkg.controller.metrics import Weight
from fedpkg.controller.receiving import Received
from fedpkg.errors import SessionFailed
from fedpkg.files import damage_of, remove_files, remove_tree
from fedpkg.log import event
from fedpkg.replies.reading import Checked, Reading
from fedpkg.stores.base import MetricPhase, RequestRow, TaskRow, UpdateRow, ValidationRow
from fedpkg.stores.home import stored_path
from fedpkg.types import Json
from fedpkg.waist.answer import Failure, Refused, Status
from fedpkg.waist.order import Order

if TYPE_CHECKING:
    from fedpkg.replies.reading import Sent

logger = logging.getLogger("fedpkg.controller")


@dataclass(frozen=True)
class Came:
    """A client's recorded answer to a request.

    Args:
        reply: the file of the reply.
        state: token of the client's state after the task.
    """

    client_id: str
    status: Status
    failure: Failure | None = None
    reply: Path | None = None
    num_examples: float | None = None
    metadata: Mapping[str, Json] = field(default_factory=dict)
    metrics: Json = None
    state: str | None = None
    task_id: str = ""
    log_tail: str = ""

    @property
    def is_ok(self) -> bool:
        return self.status == "ok"


def came_of(received: Received) -> Came:
    """A received answer as a recorded one."""
    answer = received.answer
    return Came(
        received.order.client_id,
        answer.status,
        answer.failure,
        received.path,
        answer.num_examples,
        answer.metadata,
        answer.metrics,
        answer.state,
        received.order.task_id,
        answer.log_tail or "",
    )


class Ledger:
    """The records of one round, read once and written as events happen.

    Attributes:
        earlier: the requests that an earlier controller has recorded.
    """

    def __init__(self, ctx: SessionContext, round_number: int) -> None:
        self.ctx = ctx
        self.round_number = round_number
        self.earlier: dict[str, RequestRow] = {}
        self._recorded: dict[tuple[str, str], list[TaskRow]] = {}
        self._attempts: dict[tuple[str, str], int] = {}
        self._updates: dict[str, UpdateRow] = {}
        self._replayed: dict[str, list[str] | None] = {}  # by request: clients that counted in the repeated session
        self._load()

    def _load(self) -> None:
        store, session_id = self.ctx.store, self.ctx.session.session_id
        requests = store.list_requests(session_id, round_number=self.round_number)
        self.earlier = {row.request_id: row for row in requests}
        if (replay := self.ctx.config.replay) is not None:
            found = store.list_requests(replay, round_number=self.round_number)
            self._replayed = {row.request_id: row.counted for row in found}
        if self.earlier:
            self._updates = {row.task_id: row for row in store.list_updates(session_id, self.round_number)}
            for task in self._tasks():
                if task.request_id is not None:
                    self._recorded.setdefault((task.request_id, task.client_id), []).append(task)

    def _tasks(self) -> list[TaskRow]:
        """Read the recorded tasks in the order of their attempts, and count the attempts."""
        found = self.ctx.store.list_tasks(self.ctx.session.session_id, round_number=self.round_number)
        tasks = sorted(found, key=lambda task: task.attempt)
        for task in tasks:
            self._attempts[task.client_id, task.entry_point] = task.attempt
        return tasks

    # ---- requests

    def begin(self, rows: Sequence[RequestRow], *, is_first: bool, is_after_wait: bool = False) -> list[RequestRow]:
        """Record requests that are sent at once; return their rows: the earlier ones of those that were started before.

        Args:
            is_first: nothing was answered before in this round.
            is_after_wait: the round has waited for outstanding requests before, with a result that depends on time.

        Raises:
            SessionFailed: a request differs from the one that an earlier controller recorded.
        """
        known = self.earlier
        if not is_first and all(one.status == "failed" for one in known.values()):
            known = {}  # no reply had counted when the round failed: after other answers, its requests may differ
        begun = {}
        for row in rows:
            earlier = known.get(row.request_id)
            if is_after_wait and earlier is not None and earlier.status == "failed":
                earlier = None  # this time, other requests may have arrived first
            if earlier is not None:
                self._check_same(row, earlier)
                row = dataclasses.replace(row, cohort=earlier.cohort, target=earlier.target)
            if earlier is None or earlier.status == "failed":
                begun[row.request_id] = self._again(row)
        self.ctx.store.record_requests(list(begun.values()))
        return [begun.get(row.request_id) or known[row.request_id] for row in rows]

    def begin_again(self, row: RequestRow) -> RequestRow:
        """Record that a request is sent again."""
        row = self._again(row)
        self.ctx.store.record_requests([row])
        return row

    def _again(self, row: RequestRow) -> RequestRow:
        """The row of a request that is sent: clients that failed are asked again, even if this attempt is killed."""
        replayed = self._replayed.get(row.request_id)
        return row if replayed == row.counted else dataclasses.replace(row, counted=replayed)

    def note(self, row: RequestRow, *, at_once: bool = False) -> None:
        """Record how a request was answered.

        ``at_once``: which replies count depends on when they arrived. Other rows follow from the tasks' rows, and a
        tree has hundreds in a round: they are written with these.
        """
        self.ctx.store.record_requests([row], later=not at_once)

    def _check_same(self, row: RequestRow, earlier: RequestRow) -> None:
        for name in ("number", "entry_point", "reply_kind", "client_group", "cohort"):
            if getattr(row, name) != getattr(earlier, name):
                where = f"round {self.round_number}" + (f", request {row.request_id}" if row.number > 1 else "")
                raise SessionFailed(
                    f"{where}: the strategy's request differs from the one before the session was stopped "
                    f"({name}: {getattr(earlier, name)}, now {getattr(row, name)})",
                    hint="a step must depend on nothing but its state, its replies and ctx.rng; for a changed strategy "
                    "start a new run",
                )

    # ---- tasks

    def next_attempt(self, client_id: str, entry_point: str) -> int:
        return self._attempts.get((client_id, entry_point), 0) + 1

    def begun(self, order: Order) -> None:
        """Reserve the order's attempt, so that no other task gets its number."""
        self._attempts[order.client_id, order.entry_point] = order.attempt

    def take_attempts(self, other: Ledger) -> None:
        """Number further tasks after those that another ledger of the round has begun."""
        self._attempts |= {key: max(number, self._attempts.get(key, 0)) for key, number in other._attempts.items()}

    def times_dropped_out(self, row: RequestRow, client_id: str) -> int:
        rows = self._recorded.get((row.request_id, client_id), ())
        return sum(one.failure == "dropout" for one in rows)

    def recall(self, row: RequestRow, client_id: str, reading: Reading, sent: Sent) -> tuple[Came, TaskRow] | None:
        """A client's recorded answer; None: no record, or its files have changed."""
        rows = [
            one
            for one in self._recorded.get((row.request_id, client_id), ())
            if one.status == "ok" or one.started_at >= row.started_at
        ]
        task = rows[-1] if rows else None
        if task is None or task.status == "cancelled":
            return None
        if task.status == "failed":
            failure = Failure(task.failure or "unknown", task.message or "")
            return Came(client_id, "failed", failure, log_tail=task.log_tail or ""), task
        update = self._updates.get(task.task_id)
        checked, damage = None, "its reply is not on record"
        if update is not None:
            reply = self.ctx.home / update.path
            damage = self._damage_of_state(task) or _said("reply", damage_of(reply.parent, update.checksum))
            if not damage:
                checked, damage = _read(reading, reply, sent)
        if checked is None or update is None:
            self.disown(task, damage)
            return None
        return (
            Came(
                client_id,
                "ok",
                None,
                reply,
                update.num_examples,
                checked.metadata,
                checked.metrics,
                task.state_version,
                task.task_id,
            ),
            task,
        )

    def record(
        self,
        received: Received,
        *,
        position: int,
        since: float,
        bytes_down: int,
        weight: Weight | None = None,
    ) -> TaskRow:
        """Record the result of a task, and emit an event.

        Args:
            since: time of its request. The executor's clock may differ, and `recall` finds failures from before the
                request was sent again by their times.
            position: of its client in the request's cohort.
            weight: the reported weight of metrics.

        Raises:
            StoreError: the task failed on a full disk. That may not be the client's fault, and without the client the
                model would differ: nothing is recorded, and resuming runs the task again.
        """
        ctx, order, answer = self.ctx, received.order, received.answer
        if answer.failure is not None and answer.failure.kind == "no_space":
            what = f"{order.entry_point} of {order.client_id} in round {order.round_number} failed"
            raise ctx.disk_is_full(f"{what} ({answer.failure.message})")
        started_at = min(max(answer.started_at, since), max(since, ctx.clock()))
        row = task_row(received, position=position, started_at=started_at, bytes_down=bytes_down)
        update, validation = self._reply_rows(received, weight)
        ctx.store.record_task(row, update=update, validation=validation)
        ctx.watch(TaskEnded(order=order, answer=answer))
        return row

    def _reply_rows(self, received: Received, weight: Weight | None) -> tuple[UpdateRow | None, ValidationRow | None]:
        """The row of a reply."""
        order, answer = received.order, received.answer
        number = answer.num_examples if weight is None else weight[0]
        if answer.status != "ok" or number is None or received.path is None:
            return None, None
        update = UpdateRow(
            task_id=order.task_id,
            path=stored_path(received.path, self.ctx.home),
            size_bytes=received.size_bytes,
            num_examples=number,
            metadata=dict(answer.metadata),
            checksum=received.checksum,
        )
        return update, None

    def disown_recorded(self, row: RequestRow, client_id: str) -> None:
        """Withdraw an earlier controller's record of a client's answer."""
        rows = self._recorded.pop((row.request_id, client_id), ())
        for task in rows:
            if task.status == "ok":
                self.disown(task, "its client's previous task ran again")

    def disown_answers(self, request_ids: Collection[str]) -> None:
        """Withdraw the answers to these requests: when the round is repeated, the requests may differ."""
        for task in self._tasks() if request_ids else ():
            if task.request_id in request_ids and task.status == "ok":
                self.disown(task, "its round failed, and its requests may differ now")

    # ---- damage

    def _damage_of_state(self, task: TaskRow) -> str:
        """The damage to the state from a recorded task; empty: none."""
        if task.state_version is None:
            return ""
        states = self.ctx.executor.states
        damage = states.damage(task.session_id, task.client_id, task.state_version, task.state_checksum)
        return _said("state", damage)

    def disown(self, task: TaskRow, damage: str) -> None:
        """Withdraw a task's answer, because its files are damaged, and remove them; the task runs again.

        Its files may be removed before the row is written. After a kill in between, they are missing: it is repeated.
        """
        event(logger, logging.WARNING, "task.again", task=task.task_id, reason=damage)
        reason = f"run again, because {damage}"
        row = dataclasses.replace(task, status="cancelled", message=reason, state_version=None)
        self.ctx.store.record_task(row)
        if task.state_version is not None:
            self.ctx.executor.states.discard(task.session_id, task.client_id, task.state_version)
        if (update := self._updates.get(task.task_id)) is not None:
            remove_tree((self.ctx.home / update.path).parent)


def task_row(received: Received, *, position: int, started_at: float, bytes_down: int) -> TaskRow:
    """The row of a task."""
    order, answer = received.order, received.answer
    return TaskRow(
        task_id=order.task_id,
        session_id=order.session_id,
        round_number=order.round_number,
        client_id=order.client_id,
        position=position,
        entry_point=order.entry_point,
        attempt=order.attempt,
        status=answer.status,
        failure=answer.failure.kind if answer.failure else None,
        message=answer.failure.message if answer.failure else None,
        exit_code=answer.exit_code,
        signal=answer.signal,
        started_at=started_at,
        wall_s=answer.wall_s,
        folder=answer.folder or None,
        command=answer.command,
        log_tail=answer.log_tail,
        state_version=answer.state,
        state_checksum=answer.state_checksum,
        phases=dict(answer.phases),
        request_id=order.request_id,
        bytes_down=bytes_down,
        bytes_up=received.bytes_up,
    )


class ValidationLedger(Ledger):
    """The records of a round's validation, or of another measurement: its rows of clients' metrics decide.

    Args:
        model_id: of the model that is measured.
        clusters: clients that belong to one measure its model.

    Attributes:
        found: metrics by client.
        states: tokens of the clients' states afterwards.
    """

    def __init__(
        self,
        ctx: SessionContext,
        round_number: int,
        model_id: str,
        phase: MetricPhase = "validate",
        *,
        clusters: Clusters | None = None,
    ) -> None:
        self._model_id = model_id
        self._clusters = clusters
        self._phase = phase
        self.found: dict[str, ValidationRow] = {}
        self.states: dict[str, str | None] = {}
        super().__init__(ctx, round_number)

    def _load(self) -> None:
        session_id, phase = self.ctx.session.session_id, self._phase
        rows = self.ctx.store.list_validations(session_id, round_number=self.round_number, phase=phase)
        self.found = {row.client_id: row for row in rows}
        for task in self._tasks():
            is_ours = task.entry_point == "validate" and task.request_id is None and phase == "validate"
            if is_ours and task.status == "ok" and task.state_version is not None:
                if damage := self._damage_of_state(task):
                    self.disown(task, damage)
                else:
                    self.states[task.client_id] = task.state_version

    def disown(self, task: TaskRow, damage: str) -> None:
        super().disown(task, damage)
        self.found.pop(task.client_id, None)

    def note(self, row: RequestRow, *, at_once: bool = False) -> None:
        """A validation is not a request of the strategy, so nothing is recorded."""

    def _reply_rows(self, received: Received, weight: Weight | None) -> tuple[UpdateRow | None, ValidationRow | None]:
        order, answer = received.order, received.answer
        if answer.status != "ok" or weight is None:
            return None, None
        of_cluster = None if self._clusters is None else self._clusters.model_of(order.client_id)
        row = ValidationRow(
            task_id=order.task_id,
            session_id=order.session_id,
            round_number=order.round_number,
            model_id=self._model_id if of_cluster is None else of_cluster.model_id,
            client_id=order.client_id,
            metrics=self.ctx.measured(answer.metrics, order.client_id),
            weight=weight[0],
            weight_source=weight[1],
            phase=self._phase,
        )
        self.found[order.client_id] = row
        if answer.state is not None:
            self.states[order.client_id] = answer.state
        if received.path is not None:
            remove_files(received.path.parent)  # the metrics are in the store
        return None, row


def _said(what: str, damage: str) -> str:
    return damage and f"its {what} {damage}"


def _read(reading: Reading, path: Path, sent: Sent) -> tuple[Checked | None, str]:
    try:
        return reading.check(path, sent), ""
    except (OSError, Refused) as error:
        return None, str(error)
