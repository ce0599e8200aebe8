"""The state store in portable SQL.

Statements must mean the same in SQLite and PostgreSQL: ``:named`` parameters, JSON as text, no dialect. A backend is
a ``Database``: it connects, runs transactions and turns its driver's errors into ``StoreError``.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Any

from fedpkg.errors import NotFound, nearest
from fedpkg.stores.base import (
    ClientHistoryRow,
    ClientRow,
    ClientUpdate,
    ClusterChanges,
    ClusterClientRow,
    CombinerRow,
    MetricPhase,
    MetricRow,
    ModelRow,
    PackageRow,
    RequestRow,
    RoundRow,
    RoundStatus,
    SessionRow,
    SessionStatus,
    StrategyState,
    TaskRow,
    TaskStatus,
    UpdateRow,
    ValidationRow,
)
from fedpkg.stores.client_history import note_asked, note_measured
from fedpkg.stores.clusters import clusters_of_clients, current_models, no_cluster, save_clusters, trail_of
from fedpkg.stores.database import Database, Parameters, Transaction, migrate
from fedpkg.stores.metric_rows import add_rows, replace_rows
from fedpkg.stores.overview import Overview
from fedpkg.stores.strategy_states import load_state, save_state, state_digests
from fedpkg.stores.sweeps import SweepStore
from fedpkg.stores.tables import (
    CLIENT_HISTORY,
    CLIENTS,
    CLUSTER_CLIENTS,
    COMBINERS,
    METRIC_ROWS,
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
    where_of,
)
from fedpkg.stores.write_behind import RequestRecord, TaskRecord, WriteBehind

_WITH_CLIENTS = (
    "left join clients on clients.session_id = validations.session_id and clients.client_id = validations.client_id"
)
_WITH_TASKS = "join tasks on tasks.task_id = {}.task_id"
_BY_COHORT = ("tasks.round_number", "tasks.position", "tasks.attempt", "tasks.task_id")


class StateStore:
    """Sessions, rounds, tasks and their results.

    Every method but ``record_task`` is one transaction. When it returns, its changes survive a kill of the process;
    those of ``commit_round`` also survive a power cut. Methods may be called from any thread. Floats in columns must
    not be NaN; inside JSON values (metrics, config, metadata, state) NaN and infinities are preserved.

    Methods that list rows return those that match all filters; a filter with several values matches any of them.
    ``newest_first`` reverses the documented order; at most ``limit`` rows are read.

    Raises (all methods):
        StoreError: the database is damaged, full, locked, not writable, or refuses the rows.
        NotFound: the session, round, client or model does not exist.
    """

    def __init__(self, database: Database, *, read_only: bool = False, clock: Callable[[], float] = time.time) -> None:
        self._database = WriteBehind(database)
        self._clock = clock
        migrate(database, read_only=read_only)
        self.sweeps = SweepStore(self._database, clock)
        self.overview = Overview(self._database, is_read_only=read_only)

    def close(self) -> None:
        """Close the database. Closing twice is allowed."""
        self._database.close()

    def __enter__(self) -> StateStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Packages and sessions

    def add_package(self, package: PackageRow) -> None:
        """Record a package, unless one with the same digest exists."""
        with self._database.transaction() as transaction:
            transaction.run(f"{PACKAGES.insert} on conflict (digest) do nothing", PACKAGES.encode(package))

    def create_session(
        self, session: SessionRow, clients: Iterable[ClientRow] = (), *, seed_model: ModelRow | None = None
    ) -> None:
        """Record a new session, its clients and its seed model; its package must be recorded already."""
        parameters = [CLIENTS.encode(client) for client in clients]
        with self._database.transaction() as transaction:
            transaction.run(SESSIONS.insert, SESSIONS.encode(session))
            transaction.run_many(CLIENTS.insert, parameters)
            if seed_model is not None:
                transaction.run(MODELS.upsert, MODELS.encode(seed_model))

    def get_session(self, ref: str) -> SessionRow:
        """The session with this id, or the only one whose id starts with it."""
        return self._select(SESSIONS, {"session_id": self._session_id(ref)})[0]

    def get_session_without_config(self, ref: str) -> SessionRow:
        """A session whose configuration may be damaged; in the row it is empty."""
        where, parameters = where_of({"session_id": self._session_id(ref)})
        values = dict(zip(SESSIONS.columns, self._database.rows(SESSIONS.select + where, parameters)[0], strict=True))
        return SESSIONS.decode(list({**values, "config": "{}"}.values()))

    def _session_id(self, ref: str) -> str:
        ids = self._find_sessions(ref)
        if len(ids) > 1:
            raise NotFound(f"{ref!r} is ambiguous: {_some(ids)}", hint="give more of the session's id", ref=ref)
        if not ids:
            raise self._no_session(ref)
        return ids[0]

    def list_sessions(self, *, newest_first: bool = False, limit: int | None = None) -> list[SessionRow]:
        """All sessions, oldest first."""
        return self._select(SESSIONS, order=("created_at", "session_id"), newest_first=newest_first, limit=limit)

    def set_session_status(self, session_id: str, status: SessionStatus, *, error: str | None = None) -> None:
        """Set a session's status and error."""
        self._change_session(session_id, status=status, error=error)

    def announce_rounds(self, session_id: str, num_rounds: int) -> None:
        """Record how many rounds a session will probably have that may have any number."""
        self._change_session(session_id, num_rounds=num_rounds)

    def extend_session(self, session_id: str, config: dict[str, Any], num_rounds: int) -> None:
        """Change a session's number of rounds; ``config`` is its configuration with the new number."""
        self._change_session(session_id, config=config, num_rounds=num_rounds)

    def request_stop(self, session_id: str) -> None:
        """Request the process that runs the session to stop it. The request is kept until it is withdrawn."""
        self._change_session(session_id, stop_requested=True)

    def withdraw_stop(self, session_id: str) -> None:
        """Withdraw earlier requests to stop, before the session is resumed."""
        self._change_session(session_id, stop_requested=False)

    def _change_session(self, session_id: str, **changes: Any) -> None:
        with self._database.transaction() as transaction:
            self._update_session(transaction, session_id, changes)

    def _update_session(
        self, transaction: Transaction, session_id: str, changes: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        values = {"updated_at": self._clock(), **{name: SESSIONS.value(name, one) for name, one in changes.items()}}
        assignments = ", ".join(f"{name} = :{name}" for name in values)
        statement = f"update sessions set {assignments} where session_id = :session_id"
        if not transaction.run(statement, {**values, "session_id": session_id}):
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
        """The histories of all clients that were ever asked, by client id."""
        return self._select(CLIENT_HISTORY, {"session_id": session_id}, order=("client_id",))

    # Rounds and tasks

    def begin_round(self, row: RoundRow) -> None:
        """Record that a round starts or restarts."""
        with self._database.transaction() as transaction:
            self._record_round(transaction, row)

    def record_requests(self, rows: Sequence[RequestRow], *, later: bool = False) -> None:
        """Record requests when a round sends them, and which replies count.

        ``later``: they are written together with the tasks' rows (`record_task`).
        """
        if later:
            for row in rows:
                self._database.add(RequestRecord.of(row))
        elif rows:
            with self._database.transaction() as transaction:
                transaction.run_many(REQUESTS.upsert, [REQUESTS.encode(row) for row in rows])

    def list_requests(self, session_id: str, *, round_number: int | None = None) -> list[RequestRow]:
        """Requests by round, in the order in which they were sent."""
        filters = {"session_id": session_id, "round_number": round_number}
        return self._select(REQUESTS, filters, order=("round_number", "number"))

    def _record_round(self, transaction: Transaction, row: RoundRow) -> None:
        self._update_session(transaction, row.session_id)
        transaction.run(ROUNDS.upsert, ROUNDS.encode(row))

    def record_task(
        self, task: TaskRow, *, update: UpdateRow | None = None, validation: ValidationRow | None = None
    ) -> None:
        """Record a task with its update and validation; they replace earlier rows with its id.

        They are written within 50 ms, and before the next call reads or writes. If the process is killed before that,
        the task counts as in flight.
        """
        self._database.add(TaskRecord.of(task, update, validation))

    def commit_round(
        self,
        row: RoundRow,
        model: ModelRow | None,
        *,
        strategy_state: StrategyState | None = None,
        clients: Mapping[str, ClientUpdate] | None = None,
        metrics: Mapping[str, Mapping[str, float]] | None = None,
        validations: Iterable[ValidationRow] = (),
        metric_rows: Iterable[MetricRow] = (),
        combiners: Iterable[CombinerRow] = (),
        clusters: ClusterChanges | None = None,
    ) -> None:
        """Record an aggregated round atomically: its row, its model (if the session has one), the strategy's state,
        the clients' new state and history, the aggregates of their metrics, and the changes of its clusters.

        It then survives a power cut. ``clients``: client_id → (state_version, last_num_examples), written as given.
        ``metrics``: numbers that the counted clients reported, for their history. Committing again replaces the rows.
        Only the latest two states of the strategy are kept. Failed requests of the round, not sent again, are deleted.
        """
        with self._database.transaction(durable=True) as transaction:
            if model is not None:
                transaction.run(MODELS.upsert, MODELS.encode(model))
            self._record_round(transaction, row)
            self._set_clients(transaction, row.session_id, clients or {})
            note_asked(transaction, row, metrics or {})
            of_round = {"session_id": row.session_id, "round_number": row.round_number}
            transaction.run(
                "delete from requests where session_id = :session_id and round_number = :round_number"
                " and status = 'failed'",
                of_round,
            )
            transaction.run_many(VALIDATIONS.upsert, [VALIDATIONS.encode(validation) for validation in validations])
            replace_rows(transaction, row, metric_rows)
            transaction.run(
                "delete from combiners where session_id = :session_id and round_number = :round_number", of_round
            )
            transaction.run_many(COMBINERS.upsert, [COMBINERS.encode(combiner) for combiner in combiners])
            if clusters is not None:
                save_clusters(transaction, row, clusters)
            if strategy_state is not None:
                save_state(transaction, row.session_id, strategy_state)

    def finish_round(
        self,
        row: RoundRow,
        *,
        clients: Mapping[str, ClientUpdate] | None = None,
        requests: Iterable[RequestRow] = (),
        metrics: Mapping[str, Mapping[str, float]] | None = None,
        validations: Iterable[ValidationRow] = (),
        metric_rows: Iterable[MetricRow] = (),
        combiners: Iterable[CombinerRow] = (),
    ) -> None:
        """Record the round after its validation, with the clients' states and metrics from it and their aggregates.

        Also used after a round has failed, with the requests that failed and what the combiners of its tree did.
        ``validations`` replace those on record, because the weights are known only when all clients have answered.
        """
        # Durable if clients' states are named, because their previous states are removed next.
        with self._database.transaction(durable=bool(clients)) as transaction:
            self._record_round(transaction, row)
            transaction.run_many(REQUESTS.upsert, [REQUESTS.encode(request) for request in requests])
            transaction.run_many(VALIDATIONS.upsert, [VALIDATIONS.encode(validation) for validation in validations])
            self._set_clients(transaction, row.session_id, clients or {})
            note_measured(transaction, row.session_id, metrics or {})
            add_rows(transaction, metric_rows)
            transaction.run_many(COMBINERS.upsert, [COMBINERS.encode(combiner) for combiner in combiners])

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
        limit: int | None = None,
    ) -> list[RoundRow]:
        """Rounds by session, in order."""
        filters = {"session_id": session_id, "status": status}
        return self._select(ROUNDS, filters, order=("session_id", "round_number"), limit=limit)

    def count_rounds(self, session_id: str, *, status: RoundStatus | Sequence[RoundStatus] | None = None) -> int:
        where, parameters = where_of({"session_id": session_id, "status": status})
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
        client_id: str | None = None,
        entry_point: str | None = None,
        status: TaskStatus | Sequence[TaskStatus] | None = None,
    ) -> list[TaskRow]:
        """Tasks by round, entry point, position and attempt."""
        filters = {
            "session_id": session_id,
            "round_number": round_number,
            "client_id": client_id,
            "entry_point": entry_point,
            "status": status,
        }
        return self._select(TASKS, filters, order=("round_number", "entry_point", "position", "attempt", "task_id"))

    def list_updates(self, session_id: str, round_number: int | None = None) -> list[UpdateRow]:
        """Updates by round, cohort position and attempt."""
        filters = {"tasks.session_id": session_id, "tasks.round_number": round_number}
        return self._select(UPDATES, filters, join=_WITH_TASKS.format("updates"), order=_BY_COHORT)

    def list_validations(
        self,
        session_id: str,
        *,
        round_number: int | None = None,
        client_id: str | None = None,
        phase: MetricPhase | None = "validate",
    ) -> list[ValidationRow]:
        """Validations by round, in the session's order of clients. ``phase`` None: also those before and after
        training, and the server's, which come last.
        """
        filters = {
            "validations.session_id": session_id,
            "validations.round_number": round_number,
            "validations.client_id": client_id,
            "validations.phase": phase,
        }
        join = f"{_WITH_TASKS.format('validations')} {_WITH_CLIENTS}"
        order = (_BY_COHORT[0], "clients.position is null", "clients.position", *_BY_COHORT[1:])
        return self._select(VALIDATIONS, filters, join=join, order=order)

    def list_metric_rows(
        self,
        session_id: str,
        *,
        round_number: int | None = None,
        phase: MetricPhase | None = None,
        cluster: str | Sequence[str] | None = "",
    ) -> list[MetricRow]:
        """Aggregates of metrics over clients, by round, phase, cluster and metric; none for rounds of an older fedpkg.

        ``cluster``: the paths of clusters. Empty: those over all clients. None: both kinds.
        """
        filters = {"session_id": session_id, "round_number": round_number, "phase": phase, "cluster": cluster}
        return self._select(METRIC_ROWS, filters, order=METRIC_ROWS.key)

    def list_combiners(self, session_id: str, *, round_number: int | None = None) -> list[CombinerRow]:
        """What combiners did in the rounds of a session, by round and path; none for a session without a tree."""
        filters = {"session_id": session_id, "round_number": round_number}
        return self._select(COMBINERS, filters, order=COMBINERS.key)

    # Models

    def get_model(self, ref: str) -> ModelRow:
        """The model with this id, a session's latest model, or the model whose digest starts with ``ref``.

        A session's id, also in ``<session>.<round>``, may be shortened to a unique prefix. If several models have the
        same bytes, a digest refers to the newest. ``<model>/<cluster>`` is the model of a cluster: after the round of
        that model, or, after a session alone, its last one.
        """
        if models := self._select(MODELS, {"model_id": ref}):
            return models[0]
        of_session, _, path = ref.partition("/")
        if path:
            model, is_session = self.get_model(of_session), bool(self._find_sessions(of_session))
            after = None if is_session else model.round_number
            return self.get_cluster_model(model.session_id, path, round_number=after)
        meanings: dict[str, ModelRow] = {}  # a possible meaning of the reference → the model
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
                f"{MODELS.select} where substr(digest, 1, :length) = :ref"
                " order by created_at, round_number, cluster desc",
                {"length": len(ref), "ref": ref},
            )
            meanings |= {model.digest: model for model in map(MODELS.decode, rows)}
        if len(meanings) == 1:
            return next(iter(meanings.values()))
        if meanings:
            raise NotFound(f"{ref!r} is ambiguous: {_some(meanings)}", hint="give more of it", ref=ref)
        if len(sessions) == 1:
            raise NotFound(f"session {sessions[0]} has no model: no round has made one", ref=ref)
        known = [str(row[0]) for row in self._database.rows("select model_id from models")]
        raise NotFound(
            f"there is no model {ref!r} in {self._database.where}{nearest(ref, known)}",
            hint=_hint("model list"),
            ref=ref,
        )

    def list_models(
        self,
        session_id: str | None = None,
        *,
        cluster: str | None = "",
        newest_first: bool = False,
        limit: int | None = None,
    ) -> list[ModelRow]:
        """Models of one session or of all, by session and round (not by time: the clock may have been set back).

        ``cluster``: the path of a cluster. Empty: the sessions' own global models. None: all of both kinds.
        """
        filters, order = {"session_id": session_id, "cluster": cluster}, ("session_id", "round_number", "cluster")
        return self._select(MODELS, filters, order=order, newest_first=newest_first, limit=limit)

    def list_clusters(self, session_id: str, *, round_number: int | None = None) -> list[ModelRow]:
        """The models of the clusters that exist after a round, or now, by path; none if the session has one model."""
        return current_models(self._database, session_id, round_number)

    def list_cluster_clients(self, session_id: str, *, round_number: int | None = None) -> dict[str, str]:
        """The path of the cluster to which each client belongs after a round, or now; clients without one are left out.

        A client of ``a/b`` belongs to ``a``, too; this is the deepest one.
        """
        return clusters_of_clients(self._database, session_id, round_number)

    def list_cluster_changes(self, session_id: str) -> list[ClusterClientRow]:
        """All changes of clients' clusters, by client and round."""
        return self._select(CLUSTER_CLIENTS, {"session_id": session_id}, order=("client_id", "round_number"))

    def get_cluster_model(self, session_id: str, path: str, *, round_number: int | None = None) -> ModelRow:
        """The model of a cluster after a round; without one, the last that it had."""
        found = self.list_models(session_id, cluster=path)
        if round_number is None and found:
            return found[-1]
        current = self.list_clusters(session_id, round_number=round_number)
        for model in current:
            if model.cluster == path:
                return model
        when = "" if round_number is None else f" after round {round_number}"
        if not current:
            current, when = self.list_models(session_id, cluster=None), when if found else ""
        raise no_cluster(path, sorted({model.cluster for model in current} - {""}), session_id, when)

    def list_kept_models(self, *, session_id: str | None = None, digest: str | None = None) -> list[ModelRow]:
        """Models that are not pruned, also those of clusters, optionally of a session or with a digest, by session and
        round.
        """
        where, parameters = where_of({"session_id": session_id, "digest": digest})
        rows = self._database.rows(
            f"{MODELS.select}{where}{' and' if where else ' where'} pruned is null"
            " order by session_id, round_number, cluster",
            parameters,
        )
        return [MODELS.decode(row) for row in rows]

    def state_digests(self, session_id: str | None = None) -> set[str]:
        """Digests of the model files that are named in kept strategy states, of one session or of all."""
        return state_digests(self._database, session_id)

    def set_pruned(self, models: Iterable[ModelRow]) -> None:
        """Mark models as pruned before their files are removed.

        This survives a power cut, so that no row names a removed file.
        """
        with self._database.transaction(durable=True) as transaction:
            transaction.run_many(
                "update models set pruned = :pruned where model_id = :model_id",
                [{"model_id": model.model_id, "pruned": model.pruned} for model in models],
            )

    def model_trail(self, model_id: str) -> list[ModelRow]:
        """The model, its parent, and so on back to its seed model; of a cluster's model, all that it comes from."""
        if "/" in model_id:
            models = self.list_models(model_id.partition("/")[0].rpartition(".")[0], cluster=None)
            if found := trail_of(models, model_id):
                return found
        rows = self._database.rows(
            "with recursive trail (id, parent_id, depth) as ("
            "select model_id, parent_id, 0 from models where model_id = :model_id"
            " union all select models.model_id, models.parent_id, trail.depth + 1"
            " from models join trail on models.model_id = trail.parent_id"
            " where trail.depth < (select count(*) from models)"  # in a damaged database, parents may form a cycle
            f") {MODELS.select} join trail on trail.id = models.model_id order by trail.depth",
            {"model_id": model_id},
        )
        if not rows:
            raise NotFound(f"there is no model {model_id!r} in {self._database.where}", hint=_hint("model list"))
        return [MODELS.decode(row) for row in rows]

    def load_strategy_state(self, session_id: str) -> StrategyState | None:
        """The state after the latest committed step, or None before the first."""
        return load_state(self._database, session_id)

    def version(self) -> int:
        """A number that changes when another process commits; two reads of one number have seen the same rows."""
        return self._database.version()

    def check(self) -> list[str]:
        """The problems that the database's own check reports; none if it is sound."""
        return self._database.check()

    # Look-ups

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
        """Rows that match all filters, in the order of these columns or in reverse."""
        where, parameters = where_of(filters or {})
        sql = f"{table.select} {join}{where}"
        if order:
            sql += f" order by {', '.join(column + ' desc' * newest_first for column in order)}"
        if limit is not None:
            sql, parameters["limit"] = f"{sql} limit :limit", limit
        return [table.decode(row) for row in self._database.rows(sql, parameters)]

    def _find_sessions(self, ref: str) -> list[str]:
        """The session with this id, else all whose id starts with it (none for an empty reference)."""
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
    return f"`fedpkg {command}` lists what exists; --home selects another home"
