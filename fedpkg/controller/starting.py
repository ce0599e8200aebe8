"""``startup: once``: the entry point ``startup`` runs before the rounds, and all clients start from its state."""

from __future__ import annotations

import dataclasses

import msgspec

from fedpkg.controller.context import SessionContext
from fedpkg.controller.events import Preparing, TaskEnded
from fedpkg.controller.ledger import task_row
from fedpkg.controller.orders import session_order
from fedpkg.controller.receiving import Received, Receiver
from fedpkg.controller.seeds import task_seed
from fedpkg.errors import EntryPointFailed, StoreError
from fedpkg.replies.reading import Reading
from fedpkg.stores.base import TaskRow
from fedpkg.types import ReplyKind
from fedpkg.waist.answer import Answer
from fedpkg.waist.order import ALL, Order, ReplySpec, digest_of, name_of_call
from fedpkg.waist.place import STARTUP


def started(ctx: SessionContext) -> SessionContext:
    """The context for rounds whose clients start from the state of ``startup``, which runs unless it is on record.

    Raises:
        EntryPointFailed: it failed; resuming the session runs it again.
        StoreError: its state is missing or damaged, or the disk is full.
    """
    if ctx.config.startup != "once" or STARTUP not in ctx.spec.entry_points:
        return ctx
    session_id = ctx.session.session_id
    tasks = [task for task in ctx.store.list_tasks(session_id, round_number=0) if task.client_id == ALL]
    done = next((task for task in tasks if task.status == "ok"), None)
    if done is None:
        return dataclasses.replace(ctx, started=_run(ctx, attempt=len(tasks) + 1))
    _check(ctx, done)
    return dataclasses.replace(ctx, started=done.state_version)


def _run(ctx: SessionContext, *, attempt: int) -> str | None:
    """Run it, and record its result; return the token of its state."""
    ctx.watch(Preparing(what="the package's startup, once for all clients"))
    order = _order(ctx, attempt)
    received = _received(ctx, order)
    answer = received.answer
    if answer.failure is not None and answer.failure.kind == "no_space":
        raise ctx.disk_is_full(f"{STARTUP} failed ({answer.failure.message})")
    if answer.state is not None:
        ctx.executor.states.commit(ctx.session.session_id, {ALL: answer.state})
    ctx.store.record_task(task_row(received, position=0, started_at=answer.started_at, bytes_down=0))
    if answer.status != "ok":
        ctx.watch(TaskEnded(order=order, answer=answer))
        raise _failed(ctx, answer)
    return answer.state


def _order(ctx: SessionContext, attempt: int) -> Order:
    """The order for all clients; it has no client's data."""
    spec = ReplySpec(kind=ReplyKind.NOTHING)
    ctx.executor.know(spec, digest_of(spec))
    common = session_order(ctx, len(ctx.store.list_clients(ctx.session.session_id)))
    return msgspec.structs.replace(
        common,
        task_id=f"{common.session_id}/0/{ALL}/{name_of_call(STARTUP, attempt)}",
        client_id=ALL,
        entry_point=STARTUP,
        reply_spec=digest_of(spec),
        attempt=attempt,
        seed=task_seed(ctx.session.seed, 0, ALL),
    )


def _received(ctx: SessionContext, order: Order) -> Received:
    receive = Receiver(ctx.executor, ctx.folder, Reading(ReplySpec(kind=ReplyKind.NOTHING)), lambda name: None)
    return receive(order, ctx.executor.submit(order).result())


def _failed(ctx: SessionContext, answer: Answer) -> EntryPointFailed:
    """The error for a failed one, whose log and command its event and `session show` have, as for any other task."""
    message = answer.failure.message if answer.failure else answer.status
    return EntryPointFailed(
        f"no round can start, because the package's startup failed\n    for all clients: {message}",
        hint=f"when the cause is fixed: fedpkg session resume {ctx.session.session_id} (for a changed package: a new "
        "run)",
        entry_point=STARTUP,
        failure=answer.failure.kind if answer.failure else None,
        exit_status=answer.exit_code,
        command=answer.command,
        folder=str(ctx.home / answer.folder),
        log_tail=answer.log_tail,
    )


def _check(ctx: SessionContext, task: TaskRow) -> None:
    """Raises StoreError: its state is missing or damaged. It does not run again, as fetched data may differ."""
    if task.state_version is None:
        return
    session_id = ctx.session.session_id
    if damage := ctx.executor.states.damage(session_id, ALL, task.state_version, task.state_checksum):
        raise StoreError(
            f"the state from '{STARTUP}' for all clients {damage}",
            hint="restore the folder from a copy of the home (`fedpkg home check` names it), then "
            f"`fedpkg session resume {session_id}`; without a copy, start a new run",
        )
