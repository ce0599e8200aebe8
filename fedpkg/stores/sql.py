"""The state store in portable SQL.

Text here must mean the same to SQLite and PostgreSQL: ``:named`` parameters, JSON as text, no dialect. A backend is a
``Database``: it connects, runs transactions and turns its driver's errors into ``StoreError``.
"""

from __future__ import annotations

import difflib
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

from fedpkg.errors import NotFound, StoreError, nearest
from fedpkg.stores.base import (
    WEIGHTS_MARK,
    ClientHistoryRow,
    ClientRow,
    ClientUpdate,
    ModelRow,
    PackageRow,
    RequestRow,
    RequestStatus,
    RoundRow,
    RoundStatus,
    SessionRow,
    SessionStatus,
    StateStore,
    StrategyState,
    TaskRecord,
    TaskRow,
    TaskStatus,
    UpdateRow,
    ValidationRow,
)
from fedpkg.stores.client_history import note_asked, note_measured
from fedpkg.stores.database import RESTORE, Database, Parameters, Transaction, migrate
from fedpkg.stores.tables import (
    CLIENT_HISTORY,
    CLIENTS,
    MODELS,
    PACKAGES,
    REQUESTS,
    ROUNDS,
    SESSIONS,
    TASKS,
    UPDATES,
    VALIDATIONS,
    Row,
    Table,
    to_json,
)
from fedpkg.stores.write_behind import UpToDate, WriteBehind, encoded, write

_STATE_WEIGHTS = re.compile(rf'"{re.escape(WEIGHTS_MARK)}":"([0-9a-f]{{64}})"')  # as `to_json` writes it
_WITH_TASKS = "join tasks on tasks.task_id = {}.task_id"
_BY_COHORT = ("tasks.round_number", "tasks.position", "tasks.attempt", "tasks.task_id")


class SqlStore(StateStore):
    """``StateStore`` over any ``Database`` with portable SQL."""

    def __init__(self, database: Database, *, read_only: bool = False, clock: Callable[[], float] = time.time) -> None:
        self._behind = WriteBehind(database)
        self._database: Database = UpToDate(database, self._behind.flush)
        self._clock = clock
        migrate(database, read_only=read_only)

    def close(self) -> None:
        try:
            self._behind.close()
        finally:
            self._database.close()

    def __enter__(self) -> SqlStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Packages and sessions

    def add_package(self, package: PackageRow) -> None:
        with self._database.transaction() as transaction:
            transaction.run(f"{PACKAGES.insert} on conflict (digest) do nothing", PACKAGES.encode(package))

    def create_session(
        self, session: SessionRow, clients: Iterable[ClientRow] = (), *, seed_model: ModelRow | None = None
    ) -> None:
        parameters = [CLIENTS.encode(client) for client in clients]
        with self._database.transaction() as transaction:
            transaction.run(SESSIONS.insert, SESSIONS.encode(session))
            transaction.run_many(CLIENTS.insert, parameters)
            if seed_model is not None:
                transaction.run(MODELS.upsert, MODELS.encode(seed_model))

    def get_session(self, ref: str) -> SessionRow:
        ids = self._find_sessions(ref)
        if len(ids) > 1:
            raise NotFound(f"{ref!r} can mean {_some(ids)}", hint="write more of the session's id", ref=ref)
        if not ids:
            raise self._no_session(ref)
        return self._select(SESSIONS, {"session_id": ids[0]})[0]

    def list_sessions(self, *, newest_first: bool = False, limit: int | None = None) -> list[SessionRow]:
        order = ("created_at", "session_id")
        return self._select(SESSIONS, order=order, newest_first=newest_first, limit=limit)

    def set_session_status(self, session_id: str, status: SessionStatus, *, error: str | None = None) -> None:
        with self._database.transaction() as transaction:
            self._update_session(
                transaction,
                session_id,
                ", status = :status, error = :error",
                {"status": status, "error": SESSIONS.value("error", error)},
            )

    def extend_session(self, session_id: str, config: dict[str, Any], num_rounds: int) -> None:
        with self._database.transaction() as transaction:
            values = {"config": SESSIONS.value("config", config), "num_rounds": num_rounds}
            self._update_session(transaction, session_id, ", config = :config, num_rounds = :num_rounds", values)

    def request_stop(self, session_id: str) -> None:
        with self._database.transaction() as transaction:
            self._update_session(transaction, session_id, ", stop_requested = true")

    def withdraw_stop(self, session_id: str) -> None:
        with self._database.transaction() as transaction:
            self._update_session(transaction, session_id, ", stop_requested = false")

    def _update_session(
        self, transaction: Transaction, session_id: str, changes: str = "", parameters: Parameters | None = None
    ) -> None:
        changed = transaction.run(
            f"update sessions set updated_at = :updated_at{changes} where session_id = :session_id",
            {"updated_at": self._clock(), "session_id": session_id, **(parameters or {})},
        )
        if not changed:
            raise self._no_session(session_id)

    def stop_requested(self, session_id: str) -> bool:
        rows = self._database.rows(
            "select stop_requested from sessions where session_id = :session_id", {"session_id": session_id}
        )
        if not rows:
            raise self._no_session(session_id)
        return bool(rows[0][0])

    def list_clients(self, session_id: str) -> list[ClientRow]:
        return self._select(CLIENTS, {"session_id": session_id}, order=("position", "client_id"))

    def list_client_history(self, session_id: str) -> list[ClientHistoryRow]:
        return self._select(CLIENT_HISTORY, {"session_id": session_id}, order=("client_id",))

    # Rounds and tasks

    def begin_round(self, row: RoundRow) -> None:
        with self._database.transaction() as transaction:
            self._record_round(transaction, row)

    def record_request(self, row: RequestRow) -> None:
        with self._database.transaction() as transaction:
            transaction.run(REQUESTS.upsert, REQUESTS.encode(row))

    def list_requests(
        self,
        session_id: str,
        *,
        round_number: int | None = None,
        entry_point: str | None = None,
        status: RequestStatus | None = None,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> list[RequestRow]:
        filters = {
            "session_id": session_id,
            "round_number": round_number,
            "entry_point": entry_point,
            "status": status,
        }
        order = ("round_number", "number")
        return self._select(REQUESTS, filters, order=order, newest_first=newest_first, limit=limit)

    def _record_round(self, transaction: Transaction, row: RoundRow) -> None:
        self._update_session(transaction, row.session_id)
        transaction.run(ROUNDS.upsert, ROUNDS.encode(row))

    def record_task(
        self, task: TaskRow, *, update: UpdateRow | None = None, validation: ValidationRow | None = None
    ) -> None:
        self._behind.add(TaskRecord(task=task, update=update, validation=validation))

    def record_tasks(self, records: Iterable[TaskRecord]) -> None:
        write(self._database, [encoded(record) for record in records])

    def commit_round(
        self,
        row: RoundRow,
        model: ModelRow,
        *,
        strategy_state: StrategyState | None = None,
        clients: Mapping[str, ClientUpdate] | None = None,
        metrics: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        with self._database.transaction(durable=True) as transaction:
            transaction.run(MODELS.upsert, MODELS.encode(model))
            self._record_round(transaction, row)
            self._set_clients(transaction, row.session_id, clients or {})
            note_asked(transaction, row, metrics or {})
            if strategy_state is not None:
                step, state = strategy_state
                transaction.run(
                    "insert into strategy_states (session_id, step, state) values (:session_id, :step, :state)"
                    " on conflict (session_id, step) do update set state = excluded.state",
                    {"session_id": row.session_id, "step": step, "state": to_json(state)},
                )
                transaction.run(
                    "delete from strategy_states where session_id = :session_id and step not in ("
                    "select step from strategy_states where session_id = :session_id order by step desc limit 2)",
                    {"session_id": row.session_id},
                )

    def finish_round(
        self,
        row: RoundRow,
        *,
        clients: Mapping[str, ClientUpdate] | None = None,
        requests: Iterable[RequestRow] = (),
        metrics: Mapping[str, Mapping[str, float]] | None = None,
        validations: Iterable[ValidationRow] = (),
    ) -> None:
        # Durable where clients' states are named: their former ones are removed next.
        with self._database.transaction(durable=bool(clients)) as transaction:
            self._record_round(transaction, row)
            transaction.run_many(REQUESTS.upsert, [REQUESTS.encode(request) for request in requests])
            transaction.run_many(VALIDATIONS.upsert, [VALIDATIONS.encode(validation) for validation in validations])
            self._set_clients(transaction, row.session_id, clients or {})
            note_measured(transaction, row.session_id, metrics or {})

    def _set_clients(self, transaction: Transaction, session_id: str, clients: Mapping[str, ClientUpdate]) -> None:
        changed = transaction.run_many(
            "update clients set state_version = :state_version, last_num_examples = :last_num_examples"
            " where session_id = :session_id and client_id = :client_id",
            [
                {
                    "state_version": version,
                    "last_num_examples": CLIENTS.value("last_num_examples", num_examples),
                    "session_id": session_id,
                    "client_id": client_id,
                }
                for client_id, (version, num_examples) in clients.items()
            ],
        )
        if changed != len(clients):
            raise NotFound(
                f"session {session_id} has {changed} of the {len(clients)} clients whose state was to be recorded",
                session_id=session_id,
            )

    def list_rounds(
        self,
        session_id: str | None = None,
        *,
        status: RoundStatus | Sequence[RoundStatus] | None = None,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> list[RoundRow]:
        filters = {"session_id": session_id, "status": status}
        order = ("session_id", "round_number")
        return self._select(ROUNDS, filters, order=order, newest_first=newest_first, limit=limit)

    def count_rounds(self, session_id: str, *, status: RoundStatus | Sequence[RoundStatus] | None = None) -> int:
        where, parameters = _where({"session_id": session_id, "status": status})
        return int(self._database.rows(f"select count(*) from rounds{where}", parameters)[0][0])

    def get_round(self, session_id: str, round_number: int) -> RoundRow:
        rows = self._select(ROUNDS, {"session_id": session_id, "round_number": round_number})
        if not rows:
            raise _no_round(session_id, round_number)
        return rows[0]

    def list_tasks(
        self,
        session_id: str,
        *,
        round_number: int | None = None,
        request_id: str | None = None,
        client_id: str | None = None,
        entry_point: str | None = None,
        status: TaskStatus | Sequence[TaskStatus] | None = None,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> list[TaskRow]:
        filters = {
            "session_id": session_id,
            "round_number": round_number,
            "request_id": request_id,
            "client_id": client_id,
            "entry_point": entry_point,
            "status": status,
        }
        order = ("round_number", "entry_point", "position", "attempt", "task_id")
        return self._select(TASKS, filters, order=order, newest_first=newest_first, limit=limit)

    def list_updates(
        self,
        session_id: str,
        round_number: int | None = None,
        *,
        request_id: str | None = None,
        client_id: str | None = None,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> list[UpdateRow]:
        filters = {
            "tasks.session_id": session_id,
            "tasks.round_number": round_number,
            "tasks.request_id": request_id,
            "tasks.client_id": client_id,
        }
        join = _WITH_TASKS.format("updates")
        return self._select(UPDATES, filters, join=join, order=_BY_COHORT, newest_first=newest_first, limit=limit)

    def list_validations(
        self,
        session_id: str,
        *,
        round_number: int | None = None,
        model_id: str | None = None,
        client_id: str | None = None,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> list[ValidationRow]:
        filters = {
            "validations.session_id": session_id,
            "validations.round_number": round_number,
            "validations.model_id": model_id,
            "validations.client_id": client_id,
        }
        join = _WITH_TASKS.format("validations")
        return self._select(VALIDATIONS, filters, join=join, order=_BY_COHORT, newest_first=newest_first, limit=limit)

    # Models

    def get_model(self, ref: str) -> ModelRow:
        if models := self._select(MODELS, {"model_id": ref}):
            return models[0]
        meanings: dict[str, ModelRow] = {}  # what the reference can mean → the model
        sessions = self._find_sessions(ref)
        for session_id in sessions:
            for latest in self.list_models(session_id, newest_first=True, limit=1):
                meanings[session_id] = latest
        session_ref, _, number = ref.rpartition(".")
        if session_ref and number.isdecimal():
            for session_id in self._find_sessions(session_ref):
                for model in self._select(MODELS, {"model_id": f"{session_id}.{int(number)}"}):
                    meanings[model.model_id] = model
        if ref and sessions != [ref]:
            rows = self._database.rows(
                f"{MODELS.select} where substr(digest, 1, :length) = :ref order by created_at, round_number",
                {"length": len(ref), "ref": ref},
            )
            meanings |= {model.digest: model for model in map(MODELS.decode, rows)}
        if len(meanings) == 1:
            return next(iter(meanings.values()))
        if meanings:
            raise NotFound(f"{ref!r} can mean {_some(meanings)}", hint="write more of it", ref=ref)
        if len(sessions) == 1:
            raise NotFound(f"session {sessions[0]} has no model yet", hint=_hint("model list"), ref=ref)
        known = [str(row[0]) for row in self._database.rows("select model_id from models")]
        raise NotFound(
            f"there is no model {ref!r} in {self._database.where}{nearest(ref, known)}",
            hint=_hint("model list"),
            ref=ref,
        )

    def list_models(
        self, session_id: str | None = None, *, newest_first: bool = False, limit: int | None = None
    ) -> list[ModelRow]:
        order = ("session_id", "round_number")
        return self._select(MODELS, {"session_id": session_id}, order=order, newest_first=newest_first, limit=limit)

    def list_kept_models(self, *, session_id: str | None = None, digest: str | None = None) -> list[ModelRow]:
        where, parameters = _where({"session_id": session_id, "digest": digest})
        rows = self._database.rows(
            f"{MODELS.select}{where}{' and' if where else ' where'} pruned is null order by session_id, round_number",
            parameters,
        )
        return [MODELS.decode(row) for row in rows]

    def state_digests(self, session_id: str | None = None) -> set[str]:
        where, parameters = ("", {}) if session_id is None else (" where session_id = :id", {"id": session_id})
        states = self._database.rows(f"select state from strategy_states{where}", parameters)
        return {digest for (state,) in states for digest in _STATE_WEIGHTS.findall(str(state))}

    def set_pruned(self, models: Iterable[ModelRow]) -> None:
        with self._database.transaction(durable=True) as transaction:
            transaction.run_many(
                "update models set pruned = :pruned where model_id = :model_id",
                [{"model_id": model.model_id, "pruned": model.pruned} for model in models],
            )

    def model_trail(self, model_id: str) -> list[ModelRow]:
        rows = self._database.rows(
            "with recursive trail (id, parent_id, depth) as ("
            "select model_id, parent_id, 0 from models where model_id = :model_id"
            " union all select models.model_id, models.parent_id, trail.depth + 1"
            " from models join trail on models.model_id = trail.parent_id"
            " where trail.depth < (select count(*) from models)"  # in a damaged database they may go round in circles
            f") {MODELS.select} join trail on trail.id = models.model_id order by trail.depth",
            {"model_id": model_id},
        )
        if not rows:
            raise NotFound(f"there is no model {model_id!r} in {self._database.where}", hint=_hint("model list"))
        return [MODELS.decode(row) for row in rows]

    def load_strategy_state(self, session_id: str) -> StrategyState | None:
        rows = self._database.rows(
            "select step, state from strategy_states where session_id = :session_id order by step desc limit 1",
            {"session_id": session_id},
        )
        if not rows:
            return None
        step, state = rows[0]
        try:
            decoded = json.loads(state)
        except (ValueError, TypeError, RecursionError):
            decoded = None
        if not isinstance(step, int) or not isinstance(decoded, dict):
            raise StoreError(
                f"the database is damaged: the strategy's state of session {session_id} cannot be read", hint=RESTORE
            )
        return step, decoded

    def check(self) -> list[str]:
        return self._database.check()

    # Looking things up

    def _select(
        self,
        table: Table[Row],
        filters: Parameters | None = None,
        *,
        join: str = "",
        order: Sequence[str] = (),
        newest_first: bool = False,
        limit: int | None = None,
    ) -> list[Row]:
        """Rows that pass all filters, in the order of these columns, or in the reverse one."""
        where, parameters = _where(filters or {})
        sql = f"{table.select} {join}{where}"
        if order:
            sql += f" order by {', '.join(column + ' desc' * newest_first for column in order)}"
        if limit is not None:
            sql, parameters["limit"] = f"{sql} limit :limit", limit
        return [table.decode(row) for row in self._database.rows(sql, parameters)]

    def _find_sessions(self, ref: str) -> list[str]:
        """The session with this id, else all whose id starts so (none for an empty reference)."""
        rows = self._database.rows(
            "select session_id from sessions where substr(session_id, 1, :length) = :ref order by session_id",
            {"length": len(ref), "ref": ref},
        )
        ids = [str(row[0]) for row in rows] if ref else []
        return [ref] if ref in ids else ids

    def _no_session(self, ref: str) -> NotFound:
        known = [str(row[0]) for row in self._database.rows("select session_id from sessions order by created_at")]
        near = difflib.get_close_matches(ref, known, n=3, cutoff=0.5)
        return NotFound(
            f"there is no session {ref!r} in {self._database.where}"
            + (f"; near: {', '.join(near)}" if near else f"; the latest: {', '.join(known[-3:])}" if known else ""),
            hint=_hint("session list"),
            ref=ref,
        )


def _where(filters: Parameters) -> tuple[str, dict[str, Any]]:
    """A where clause for the filters that are not None, and its parameters; several values: any of them."""
    clauses: list[str] = []
    parameters: dict[str, Any] = {}
    for column, value in filters.items():
        if value is None:
            continue
        several = (value,) if isinstance(value, (str, int)) else tuple(value)
        names = [f"{column.replace('.', '_')}_{number}" for number in range(len(several))]
        parameters.update(zip(names, several, strict=True))
        clauses.append(f"{column} in ({', '.join(f':{name}' for name in names) or 'null'})")
    return (f" where {' and '.join(clauses)}" if clauses else ""), parameters


def _no_round(session_id: str, round_number: int) -> NotFound:
    return NotFound(
        f"session {session_id} has no round {round_number}",
        hint=f"`fedpkg session show {session_id}` lists its rounds",
        session_id=session_id,
        round_number=round_number,
    )


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _hint(command: str) -> str:
    return f"`fedpkg {command}` shows what is there; --home names another home"
