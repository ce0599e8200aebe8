"""The state store in portable SQL: the statements, and how rows become parameters and come back.

Text here must mean the same to SQLite and PostgreSQL: ``:named`` parameters, JSON as text, no dialect. A backend is a
``Database``: it connects, runs transactions and turns its driver's errors into ``StoreError``.
"""

from __future__ import annotations

import difflib
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from fedpkg.errors import NotFound, OtherSchema, StoreError, nearest
from fedpkg.stores.base import (
    WEIGHTS_MARK,
    ClientHistoryRow,
    ClientRow,
    ClientUpdate,
    ModelRow,
    PackageRow,
    RequestRow,
    RoundRow,
    SessionRow,
    SessionStatus,
    StateStore,
    StrategyState,
    TaskRecord,
    TaskRow,
    UpdateRow,
    ValidationRow,
)

MIGRATIONS = Path(__file__).parent / "migrations"
_RESTORE = "put back a copy of the database; `fedpkg home check` looks at the rest of the home"
_STATE_WEIGHTS = re.compile(rf'"{re.escape(WEIGHTS_MARK)}":"([0-9a-f]{{64}})"')  # as `to_json` writes it
Row = TypeVar("Row")
Parameters = Mapping[str, Any]


class Reader(Protocol):
    def rows(self, sql: str, parameters: Parameters = ..., /) -> list[Sequence[Any]]:
        """All rows of one statement."""

    def has_table(self, name: str, /) -> bool: ...


class Transaction(Reader, Protocol):
    """Statements that take effect together."""

    def run(self, sql: str, parameters: Parameters = ..., /) -> int:
        """Run a statement; return how many rows it changed."""

    def run_many(self, sql: str, parameters: Sequence[Parameters], /) -> int:
        """Run a statement once per set of parameters; return how many rows they changed together."""


class Database(Reader, Protocol):
    """What a backend provides. Everything may be called from any thread."""

    @property
    def where(self) -> str:
        """Which database this is, for messages."""

    def transaction(self, *, durable: bool = False) -> AbstractContextManager[Transaction]:
        """Writing, one transaction at a time; ``durable``: when the block ends it would survive a power cut."""

    def check(self) -> list[str]:
        """What the database finds wrong with itself."""

    def close(self) -> None: ...


# --- migrations ---------------------------------------------------------------------------------------------------


def migrate(database: Database, *, folder: Path = MIGRATIONS, read_only: bool = False) -> None:
    """Bring the schema up to the newest of ``folder``'s ``NNNN_name.sql``, each in a transaction of its own.

    Raises:
        OtherSchema: a newer fedpkg wrote the database, or it is older and ``read_only``.
        StoreError: it is empty and ``read_only``, or its version is no number.
    """
    migrations = {int(path.name[:4]): path for path in sorted(folder.glob("[0-9][0-9][0-9][0-9]_*.sql"))}
    newest = max(migrations)
    version = _schema_version(database)
    if version > newest:
        raise OtherSchema(
            f"{database.where} was written by a newer fedpkg: its schema is {version}, this one knows up to {newest}",
            hint="upgrade fedpkg, or use another --home",
            version=version,
        )
    if version == newest:
        return
    if read_only and version == 0:
        raise StoreError(
            f"{database.where} holds nothing: it is damaged, or was copied without the file {database.where}-wal",
            hint="put back a copy of it, with its -wal file",
        )
    if read_only:
        raise OtherSchema(
            f"{database.where} was written by an older fedpkg: its schema is {version}, this one reads {newest}",
            hint="run or resume a session in this home once: that brings the database up to date",
            version=version,
        )
    for number, path in migrations.items():
        with database.transaction() as transaction:
            if _schema_version(transaction) >= number:  # another process was faster
                continue
            for statement in _statements(path.read_text(encoding="utf-8")):
                transaction.run(statement)
            transaction.run(
                "insert into schema_version (only_row, version) values (1, :version)"
                " on conflict (only_row) do update set version = excluded.version",
                {"version": number},
            )


def _schema_version(reader: Reader) -> int:
    if not reader.has_table("schema_version"):
        return 0
    rows = reader.rows("select version from schema_version")
    version = rows[0][0] if rows else 0
    if not isinstance(version, int):
        raise StoreError(f"the database is damaged: its schema_version is {version!r:.100}", hint=_RESTORE)
    return version


def _statements(script: str) -> list[str]:
    lines = [line for line in script.splitlines() if not line.lstrip().startswith("--")]
    return [statement.strip() for statement in "\n".join(lines).split(";") if statement.strip()]


# --- rows ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table(Generic[Row]):
    """How one kind of row is kept.

    Columns are the row's fields. ``json`` columns hold JSON text (None is null). ``free_text`` columns hold what
    programs said, which may be no text at all: characters that databases refuse are written as escapes.
    """

    name: str
    row: type[Row]
    key: tuple[str, ...]
    json: frozenset[str] = frozenset()
    free_text: frozenset[str] = frozenset()

    @cached_property
    def columns(self) -> tuple[str, ...]:
        return tuple(f.name for f in fields(self.row))  # type: ignore[arg-type]  # rows are dataclasses

    @cached_property
    def insert(self) -> str:
        values = ", ".join(f":{column}" for column in self.columns)
        return f"insert into {self.name} ({', '.join(self.columns)}) values ({values})"

    @cached_property
    def upsert(self) -> str:
        changes = ", ".join(f"{column} = excluded.{column}" for column in self.columns if column not in self.key)
        return f"{self.insert} on conflict ({', '.join(self.key)}) do update set {changes}"

    @cached_property
    def select(self) -> str:
        return f"select {', '.join(f'{self.name}.{column}' for column in self.columns)} from {self.name}"

    def encode(self, row: Row) -> dict[str, Any]:
        return {column: self.value(column, getattr(row, column)) for column in self.columns}

    def value(self, column: str, value: Any) -> Any:
        """``value`` as every database can keep it in ``column``.

        Raises:
            StoreError: it cannot be kept as it is: NaN (SQLite makes it null), or text that is not Unicode.
        """
        if value is None:
            return None
        if column in self.json:
            return to_json(value)
        if isinstance(value, float) and value != value:
            raise StoreError(f"{self.name}.{column} is NaN, which no row may hold", table=self.name, column=column)
        if isinstance(value, str) and (not value.isascii() or "\0" in value):
            storable = value.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")
            if storable != value and column not in self.free_text:
                raise StoreError(
                    f"{self.name}.{column} is not Unicode text: {storable}",
                    hint="rename the file, folder or client: names must be UTF-8 without NUL characters",
                    table=self.name,
                    column=column,
                )
            return storable
        return value

    @cached_property
    def types(self) -> tuple[tuple[str, tuple[type, ...]], ...]:
        """The Python types of each column's values, by the row's annotations; an alias of words is text."""
        kinds = {
            "int": (int,),
            "float": (int, float),
            "bool": (int,),
            "dict": (dict,),
            "list": (list,),
            "Json": (object,),
        }
        found = []
        for field in fields(self.row):  # type: ignore[arg-type]
            word = re.split(r"\W", str(field.type))[0]
            none = (type(None),) if "None" in str(field.type) else ()
            found.append((field.name, (*kinds.get(word, (str,)), *none)))
        return tuple(found)

    def decode(self, values: Sequence[Any]) -> Row:
        """The row of what a database gives.

        Raises:
            StoreError: it is none of ours: somebody, or a fault of the disk, has changed the database.
        """
        items: dict[str, Any] = dict(zip(self.columns, values, strict=True))
        column = ""
        try:
            for column in self.json:
                if items[column] is not None:
                    items[column] = json.loads(items[column])
            for column, types in self.types:
                if not isinstance(items[column], types):
                    raise TypeError(f"it is {items[column]!r:.100}")
            column = ""
            return self.row(**items)
        except (ValueError, TypeError, RecursionError) as error:
            where = ", ".join(f"{name} {items[name]!r:.100}" for name in self.key)
            what = f"{self.name}.{column}" if column else f"a row of {self.name}"
            raise StoreError(
                f"the database is damaged: {what} of {where} cannot be read: {error}",
                hint=_RESTORE,
                table=self.name,
                column=column,
            ) from error


def to_json(value: Any) -> str:
    """JSON text, ASCII only: so NaN, lone surrogates and NUL come back from any database as they went in."""
    return json.dumps(value, allow_nan=True, separators=(",", ":"))


PACKAGES = Table("packages", PackageRow, ("digest",), json=frozenset({"entry_points"}))
SESSIONS = Table(
    "sessions",
    SessionRow,
    ("session_id",),
    json=frozenset({"config", "signatures"}),
    free_text=frozenset({"error"}),
)
CLIENTS = Table("clients", ClientRow, ("session_id", "client_id"))
CLIENT_HISTORY = Table(
    "client_history",
    ClientHistoryRow,
    ("session_id", "client_id"),
    json=frozenset({"train_metrics", "validation_metrics"}),
)
MODELS = Table("models", ModelRow, ("model_id",), json=frozenset({"contributors", "buffers"}))
ROUNDS = Table(
    "rounds",
    RoundRow,
    ("session_id", "round_number"),
    json=frozenset({"cohort", "counted", "metrics", "train_metrics", "strategy_metrics", "averages", "phases"}),
    free_text=frozenset({"error"}),
)
REQUESTS = Table(
    "requests", RequestRow, ("session_id", "round_number", "request_id"), json=frozenset({"cohort", "counted"})
)
TASKS = Table(
    "tasks",
    TaskRow,
    ("task_id",),
    json=frozenset({"phases"}),
    free_text=frozenset({"message", "command", "log_tail"}),
)
UPDATES = Table("updates", UpdateRow, ("task_id",), json=frozenset({"metadata"}))
VALIDATIONS = Table("validations", ValidationRow, ("task_id",), json=frozenset({"metrics"}))


# --- the store ----------------------------------------------------------------------------------------------------


class SqlStore(StateStore):
    """``StateStore`` over any ``Database`` with portable SQL."""

    def __init__(self, database: Database, *, read_only: bool = False, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        migrate(database, read_only=read_only)

    def close(self) -> None:
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

    def list_sessions(self) -> list[SessionRow]:
        return self._select(SESSIONS, order="created_at, session_id")

    def set_session_status(self, session_id: str, status: SessionStatus, *, error: str | None = None) -> None:
        clear_stop = ", stop_requested = false" if status == "running" else ""
        with self._database.transaction() as transaction:
            self._update_session(
                transaction,
                session_id,
                f", status = :status, error = :error{clear_stop}",
                {"status": status, "error": SESSIONS.value("error", error)},
            )

    def extend_session(self, session_id: str, config: dict[str, Any], num_rounds: int) -> None:
        with self._database.transaction() as transaction:
            values = {"config": SESSIONS.value("config", config), "num_rounds": num_rounds}
            self._update_session(transaction, session_id, ", config = :config, num_rounds = :num_rounds", values)

    def request_stop(self, session_id: str) -> None:
        with self._database.transaction() as transaction:
            self._update_session(transaction, session_id, ", stop_requested = true")

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
        return self._select(CLIENTS, {"session_id": session_id}, order="position, client_id")

    def list_client_history(self, session_id: str) -> list[ClientHistoryRow]:
        return self._select(CLIENT_HISTORY, {"session_id": session_id}, order="client_id")

    # Rounds and tasks

    def begin_round(self, row: RoundRow) -> None:
        with self._database.transaction() as transaction:
            self._record_round(transaction, row)

    def record_request(self, row: RequestRow) -> None:
        with self._database.transaction() as transaction:
            transaction.run(REQUESTS.upsert, REQUESTS.encode(row))

    def list_requests(self, session_id: str, *, round_number: int | None = None) -> list[RequestRow]:
        filters = {"session_id": session_id, "round_number": round_number}
        return self._select(REQUESTS, filters, order="round_number, number")

    def _record_round(self, transaction: Transaction, row: RoundRow) -> None:
        self._update_session(transaction, row.session_id)
        transaction.run(ROUNDS.upsert, ROUNDS.encode(row))

    def record_task(
        self, task: TaskRow, *, update: UpdateRow | None = None, validation: ValidationRow | None = None
    ) -> None:
        self.record_tasks([TaskRecord(task=task, update=update, validation=validation)])

    def record_tasks(self, records: Iterable[TaskRecord]) -> None:
        records = list(records)
        ids = [{"task_id": record.task.task_id} for record in records]
        tasks = [TASKS.encode(record.task) for record in records]
        updates = [UPDATES.encode(record.update) for record in records if record.update]
        validations = [VALIDATIONS.encode(record.validation) for record in records if record.validation]
        with self._database.transaction() as transaction:
            transaction.run_many("delete from updates where task_id = :task_id", ids)
            transaction.run_many("delete from validations where task_id = :task_id", ids)
            transaction.run_many(TASKS.upsert, tasks)
            transaction.run_many(UPDATES.insert, updates)
            transaction.run_many(VALIDATIONS.insert, validations)

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
            self._add_to_history(transaction, row, metrics or {})
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
            measured = [
                ClientHistoryRow(session_id=row.session_id, client_id=client_id, validation_metrics=dict(numbers))
                for client_id, numbers in (metrics or {}).items()
            ]
            transaction.run_many(
                f"{CLIENT_HISTORY.insert} on conflict (session_id, client_id)"
                " do update set validation_metrics = excluded.validation_metrics",
                [CLIENT_HISTORY.encode(one) for one in measured],
            )

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

    def _add_to_history(
        self, transaction: Transaction, row: RoundRow, metrics: Mapping[str, Mapping[str, float]]
    ) -> None:
        """Once for each round, however often it is committed."""
        number, counted = row.round_number, set(row.counted or ())
        asked = [
            ClientHistoryRow(
                session_id=row.session_id,
                client_id=client_id,
                times_asked=1,
                last_asked=number,
                times_counted=int(client_id in counted),
                last_counted=number if client_id in counted else None,
                train_metrics=dict(metrics.get(client_id, {})),
            )
            for client_id in row.cohort
        ]
        former = "client_history"
        transaction.run_many(
            f"{CLIENT_HISTORY.insert} on conflict (session_id, client_id) do update set"
            f" times_asked = {former}.times_asked"
            f" + case when coalesce({former}.last_asked, 0) < excluded.last_asked then 1 else 0 end,"
            " last_asked = excluded.last_asked,"
            f" times_counted = {former}.times_counted"
            f" + case when coalesce({former}.last_counted, 0) < coalesce(excluded.last_counted, 0) then 1 else 0 end,"
            f" last_counted = coalesce(excluded.last_counted, {former}.last_counted),"
            f" train_metrics = case when excluded.last_counted is null then {former}.train_metrics"
            " else excluded.train_metrics end",
            [CLIENT_HISTORY.encode(one) for one in asked],
        )

    def list_rounds(self, session_id: str) -> list[RoundRow]:
        return self._select(ROUNDS, {"session_id": session_id}, order="round_number")

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
        entry_point: str | None = None,
        client_id: str | None = None,
    ) -> list[TaskRow]:
        return self._select(
            TASKS,
            {
                "session_id": session_id,
                "round_number": round_number,
                "entry_point": entry_point,
                "client_id": client_id,
            },
            order="round_number, entry_point, position, attempt, task_id",
        )

    def list_updates(self, session_id: str, round_number: int) -> list[UpdateRow]:
        rows = self._database.rows(
            f"{UPDATES.select} join tasks on tasks.task_id = updates.task_id"
            " where tasks.session_id = :session_id and tasks.round_number = :round_number"
            " order by tasks.position, tasks.attempt, tasks.task_id",
            {"session_id": session_id, "round_number": round_number},
        )
        return [UPDATES.decode(row) for row in rows]

    def list_validations(
        self, session_id: str, *, round_number: int | None = None, model_id: str | None = None
    ) -> list[ValidationRow]:
        where, parameters = _where(
            VALIDATIONS, {"session_id": session_id, "round_number": round_number, "model_id": model_id}
        )
        rows = self._database.rows(
            f"{VALIDATIONS.select} join tasks on tasks.task_id = validations.task_id{where}"
            " order by tasks.round_number, tasks.position, tasks.attempt, tasks.task_id",
            parameters,
        )
        return [VALIDATIONS.decode(row) for row in rows]

    # Models

    def get_model(self, ref: str) -> ModelRow:
        if models := self._select(MODELS, {"model_id": ref}):
            return models[0]
        meanings: dict[str, ModelRow] = {}  # what the reference can mean → the model
        sessions = self._find_sessions(ref)
        for session_id in sessions:
            if latest := self._select(MODELS, {"session_id": session_id}, order="round_number"):
                meanings[session_id] = latest[-1]
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

    def list_models(self, session_id: str | None = None) -> list[ModelRow]:
        return self._select(MODELS, {"session_id": session_id}, order="session_id, round_number")

    def list_kept_models(self, *, session_id: str | None = None, digest: str | None = None) -> list[ModelRow]:
        where, parameters = _where(MODELS, {"session_id": session_id, "digest": digest})
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
                f"the database is damaged: the strategy's state of session {session_id} cannot be read", hint=_RESTORE
            )
        return step, decoded

    def check(self) -> list[str]:
        return self._database.check()

    # Looking things up

    def _select(self, table: Table[Row], filters: Parameters | None = None, *, order: str | None = None) -> list[Row]:
        where, parameters = _where(table, filters or {})
        rows = self._database.rows(f"{table.select}{where}{f' order by {order}' if order else ''}", parameters)
        return [table.decode(row) for row in rows]

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


def _where(table: Table[Row], filters: Parameters) -> tuple[str, dict[str, Any]]:
    """A where clause for the filters that are not None, and its parameters."""
    parameters = {column: value for column, value in filters.items() if value is not None}
    clauses = " and ".join(f"{table.name}.{column} = :{column}" for column in parameters)
    return (f" where {clauses}" if clauses else ""), parameters


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
