"""A session: its rounds in sequence, until all are finished or it is stopped."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from fedpkg.controller.asked import desk_of
from fedpkg.controller.clusters import Clusters
from fedpkg.controller.collapse import CollapseWatch
from fedpkg.controller.context import SessionContext
from fedpkg.controller.events import SessionEnded, SessionStarted
from fedpkg.controller.lanes import Lanes
from fedpkg.controller.ledger import Ledger
from fedpkg.controller.orders import Payloads
from fedpkg.controller.outstanding import Outstanding
from fedpkg.controller.own_code import fault_of_own
from fedpkg.controller.round import Rounds, finish_round, global_model, is_validated, train_round
from fedpkg.controller.starting import started
from fedpkg.controller.state import check_state, decode
from fedpkg.controller.stopping import StopWatch
from fedpkg.controller.trail import store_model
from fedpkg.errors import FedpkgError, Interrupted, SessionFailed, StoreError
from fedpkg.formats.base import ModelForm
from fedpkg.formats.model_file import read_model
from fedpkg.formats.records_file import read_records
from fedpkg.log import event
from fedpkg.stores.base import OUTSTANDING, ClientRow, ModelRow, RoundRow, SessionRow, SessionStatus
from fedpkg.stores.prune import due_models, due_task_folders, prune_models, remove
from fedpkg.stores.sql import StateStore
from fedpkg.strategies.base import ENDED, State, StepResult
from fedpkg.weights.records import Records
from fedpkg.weights.weights import Weights

logger = logging.getLogger("fedpkg.controller")


def begin_session(ctx: SessionContext, clients: Iterable[ClientRow], seed_model: Weights | None) -> None:
    """Record a session with its clients and its seed model (round 0), if it has one. From now on it can be resumed.

    Its package must be in the store.
    """
    row = None
    if seed_model is not None:
        session_id, now = ctx.session.session_id, ctx.clock()
        row = store_model(ctx.models, ctx.form, seed_model, session_id=session_id, round_number=0, created_at=now)
    ctx.store.create_session(ctx.session, clients, seed_model=row)


def run_session(ctx: SessionContext) -> SessionRow:
    """Run the remaining rounds of a session; return its row when it has ended (finished, or stopped by request).

    Raises:
        SessionFailed: too few clients answered. The session can be resumed when the cause is fixed.
        Interrupted: Ctrl-C. The session can be resumed.
        FedpkgError: any other failure; the session is recorded as failed, and can be resumed.
    """
    rounds = ctx.store.list_rounds(ctx.session.session_id)
    done = max((row.round_number for row in rounds if row.status in ("aggregated", "finished")), default=0)
    unfinished = [row.round_number for row in rounds if row.status == "aggregated"]
    ctx.store.set_session_status(ctx.session.session_id, "running")
    clients = ctx.store.list_clients(ctx.session.session_id)
    first = unfinished[0] if unfinished else done + 1
    num_clients, num_rounds = len(clients), ctx.config.rounds or 0
    try:
        ctx.watch(
            SessionStarted(session=ctx.session, num_clients=num_clients, first_round=first, num_rounds=num_rounds)
        )
        ctx.check_states(clients)  # now, not hours later when a client is asked
        finished = [row for row in rounds if row.status == "finished"]
        collapses = CollapseWatch(finished, hint=_what_breaks_models(ctx))
        stops = StopWatch(ctx.config.stop, finished, is_validated=is_validated(ctx))
        return _run_rounds(started(ctx), done, unfinished, collapses, stops)
    except KeyboardInterrupt:
        return _interrupted(ctx)
    except (Exception, SystemExit) as error:  # of a strategy that calls sys.exit
        if (failed := _failed(ctx, error)) is error:
            raise
        raise failed from error


def _run_rounds(
    ctx: SessionContext, done: int, unfinished: Sequence[int], collapses: CollapseWatch, stops: StopWatch
) -> SessionRow:
    """Run the rounds after the first ``done``, after closing those that are ``unfinished``."""
    session_id = ctx.session.session_id
    lanes, outstanding = Lanes(ctx.executor), Outstanding()
    rounds = Rounds(ctx, lanes, outstanding, Clusters(ctx))
    state, kept = _load_state(ctx, done)
    model = global_model(ctx, state)  # models of earlier rounds have the same tensors
    outstanding.take_up(
        kept, lambda number: desk_of(ctx, lanes, number, Ledger(ctx, number), Payloads(ctx, number, model))
    )
    result = StepResult.of(state)

    def finish(row: RoundRow) -> None:
        row = finish_round(rounds, row, is_last=bool(result.finished))
        collapses.look(row)
        stops.look(row)

    for round_number in unfinished:
        finish(ctx.store.get_round(session_id, round_number))
    _prune(rounds, done, stops.best)  # including files that a killed controller has not removed
    for round_number in range(done + 1, ctx.config.most_rounds + 1):
        if result.finished or stops.reason:
            break
        if ctx.store.stop_requested(session_id):
            return _end(ctx, "stopped")
        result, row = train_round(rounds, round_number, result.state)
        finish(row)
        _prune(rounds, round_number, stops.best)
    outstanding.end()
    if ctx.traits.has_model or ctx.traits.makes_model:  # others have results of their own, which may be about failures
        check_any_answered(ctx.store, session_id)
    reason = None if result.finished == ENDED else result.finished
    return _end(ctx, "finished", reason=reason or stops.reason)


def check_any_answered(store: StateStore, session_id: str) -> None:
    """Raise SessionFailed if all calls of a session have failed: programs of users may go on without replies."""
    rounds = store.list_rounds(session_id)
    failed = sum(row.num_failed for row in rounds)
    if failed and not any(row.num_ok for row in rounds):
        raise SessionFailed(
            f"session {session_id} ended, but all {failed} calls of its clients have failed",
            hint="see why above; when it is mended: fedpkg session resume --fresh",
            session_id=session_id,
        )


def _interrupted(ctx: SessionContext) -> SessionRow:
    """The session was stopped: return its row if by request, else raise Interrupted."""
    session_id = ctx.session.session_id
    with suppress(StoreError):  # the store cannot be used, so no request was made through it
        if ctx.store.stop_requested(session_id):
            return _end(ctx, "stopped")
    _end(ctx, "interrupted")
    raise Interrupted(
        f"interrupted; all committed rounds are kept in session {session_id}",
        hint=f"fedpkg session resume {session_id}",
        session_id=session_id,
    ) from None


def _failed(ctx: SessionContext, error: BaseException) -> BaseException:
    """Record that a session has failed; return the error to raise."""
    session_id = ctx.session.session_id
    if isinstance(error, FedpkgError):
        _end(ctx, "failed", reason=error.message)
        return error
    if isinstance(error, OSError):
        _end(ctx, "failed", reason=str(error))
        hint = f"when the cause is fixed: fedpkg session resume {session_id}"
        return StoreError(f"session {session_id} stopped: {error}", hint=hint, session_id=session_id)
    # An error in fedpkg or in the strategy: the session must not stay recorded as running.
    of_own = fault_of_own(error, where=f"session {session_id}", session_id=session_id)
    _end(ctx, "failed", reason=f"{type(error).__name__}: {error}")
    return error if of_own is None else of_own


def _what_breaks_models(ctx: SessionContext) -> str:
    """Likely causes of a model that has suddenly become much worse."""
    places = ["the learning rates of the server (section strategy) and of the clients"]
    if ctx.form.keys == "positions" and not ctx.store.get_model(f"{ctx.session.session_id}.0").buffers:
        places.append("buffers: (the model's tensors are named by position, and none is known to be a buffer)")
    return ", and at ".join(places)


def _end(ctx: SessionContext, status: SessionStatus, *, reason: str | None = None) -> SessionRow:
    session_id = ctx.session.session_id
    try:
        ctx.store.set_session_status(session_id, status, error=reason)
        row = ctx.store.get_session(session_id)
    except StoreError:  # a full disk: its own error is about to be raised
        row = dataclasses.replace(ctx.session, status=status, error=reason)
    event(logger, logging.INFO, f"session.{status}", session=session_id)
    ctx.watch(SessionEnded(session=row))
    return row


def _prune(rounds: Rounds, done: int, best: int | None) -> None:
    """Remove files of finished rounds up to ``done`` that ``keep`` does not keep and no outstanding request needs."""
    ctx, oldest = rounds.ctx, rounds.outstanding.oldest
    keep, done = ctx.config.keep, done if oldest is None else min(done, oldest - 1)
    due = due_models(ctx.store, ctx.session.session_id, keep.models, done=done, best=best)
    prune_models(ctx.store, ctx.models, due)
    remove(due_task_folders(ctx.folder, keep.task_folders, done=done, keep_updates=keep.updates))


def _load_state(ctx: SessionContext, step: int) -> tuple[State, Sequence[dict[str, Any]]]:
    """The strategy's state after ``step`` rounds, and the outstanding requests at that time."""
    session_id = ctx.session.session_id
    saved, has_model = ctx.store.load_strategy_state(session_id), ctx.traits.has_model
    if saved is None or step == 0:
        seed: Any = read_stored_model(ctx, ctx.store.get_model(f"{session_id}.0")) if has_model else None
        state = ctx.strategy.init(seed)
        check_state(state, "a strategy must begin with a state", has_model=has_model)
        return state, ()
    if saved[0] != step:
        raise StoreError(f"session {session_id}: the model is of round {step}, the strategy's state of {saved[0]}")

    made = _forms_of_made(ctx)

    def get(digest: str, buffers: Sequence[str]) -> Weights:
        is_model = ctx.models.path(digest, ctx.form.suffix).exists()
        form = made.get(digest) or (ctx.form if is_model else ctx.form.of_state)
        return _read_verified(ctx, digest, form, buffers)

    def get_records(digest: str) -> Records:
        ctx.models.verify(digest)
        records = read_records(ctx.models.path(digest, ctx.form.of_state.suffix))
        return Records({name: weights.clone() for name, weights in records.sets.items()}, records.data)

    # Many requests may send the same weights: they share one copy, as before the interruption.
    sent = functools.cache(get)
    data = dict(saved[1])
    kept = data.pop(OUTSTANDING, [])
    outstanding = decode(kept, lambda digest, buffers: sent(digest, tuple(buffers)), functools.cache(get_records))
    return decode(data, get, get_records), outstanding


def _forms_of_made(ctx: SessionContext) -> dict[str, ModelForm]:
    """The forms of global models that the session's strategy has made, by digest."""
    rows = ctx.store.list_models(ctx.session.session_id) if ctx.traits.makes_model else ()
    return {row.digest: ModelForm(row.suffix, row.keys) for row in rows}  # type: ignore[arg-type]


def read_stored_model(ctx: SessionContext, row: ModelRow) -> Weights:
    """A global model from the store, in memory, after its digest was checked."""
    return _read_verified(ctx, row.digest, ModelForm(row.suffix, row.keys), row.buffers)  # type: ignore[arg-type]


def _read_verified(ctx: SessionContext, digest: str, form: ModelForm, buffers: Sequence[str]) -> Weights:
    ctx.models.verify(digest)
    return Weights(read_model(ctx.models.path(digest, form.suffix)), buffers=buffers).clone()
