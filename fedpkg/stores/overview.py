"""Reads of the state store that stay small however large the session: sums by SQL, and columns without cohorts.

The tables of the API and of the dashboard come from here. Statements are portable, as in `fedpkg.stores.sql`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec

from fedpkg.errors import StoreError
from fedpkg.stores.base import CombinerRow, MetricRow, PackageRow, RoundRow, TaskRow, ValidationRow
from fedpkg.stores.database import Reader
from fedpkg.stores.tables import COMBINERS, METRIC_ROWS, PACKAGES, SESSIONS, TASKS, VALIDATIONS, Table, where_of
from fedpkg.types import Json

Row = TypeVar("Row")

BATCH_ROWS = 1000
BATCH_BYTES = 4 << 20  # of JSON, of the rows that are in memory at once
_DONE = "('aggregated', 'finished')"


def _length(column: str) -> str:
    """The number of names in a JSON list of texts, without parsing it: quotes inside a name are escaped."""
    separators = f"""(length({column}) - length(replace({column}, '","', ''))) / 3"""
    return f"case when {column} is null or {column} = '[]' then 0 else {separators} + 1 end"


@dataclass
class Read:
    """What was read, with the problems of damaged rows, which are left out."""

    rows: list[Any]
    problems: list[str] = field(default_factory=list)


class RoundSums(NamedTuple):
    """A session's rounds in numbers."""

    rounds_done: int = 0
    last_round: int = 0
    last_status: str = ""


class RoundFacts(NamedTuple):
    """A round without the names of its clients and without its metrics."""

    round_number: int
    status: str
    num_asked: int
    num_counted: int
    target: int
    started_at: float
    finished_at: float | None
    wall_s: float | None
    num_ok: int
    num_failed: int
    num_examples: float
    model_id: str | None
    error: str | None
    phases: dict[str, float]
    strategy_metrics: dict[str, Any]
    averages: dict[str, Any]


class RequestSums(NamedTuple):
    """The strategy's requests of a round."""

    requests: int = 0
    calls: int = 0
    bytes_down: int = 0
    bytes_up: int = 0


class ModelFacts(NamedTuple):
    """A model without the names of its contributors."""

    model_id: str
    session_id: str
    round_number: int
    cluster: str
    parents: list[str]
    parent_id: str | None
    until_round: int | None
    digest: str
    suffix: str
    size_bytes: int
    created_at: float
    num_contributors: int
    num_examples: float
    pruned: str | None


# The number of entries of models.contributors, without parsing them.
_ENTRIES = """(length(contributors) - length(replace(contributors, '"client_id":', ''))) / 12"""


class CombinerSums(NamedTuple):
    """A combiner in all rounds of a session; the bytes are those between it and the combiner above."""

    rounds: int
    failed: int
    bytes_down: int
    bytes_up: int
    virtual_s: float | None


class GroupSums(NamedTuple):
    """The requests to a group of clients, or to the clients of a combiner."""

    calls: int
    failed: int
    bytes_down: int
    bytes_up: int
    seconds: float


class ClientSums(NamedTuple):
    """A client's tasks in some rounds."""

    calls: int = 0
    failed: int = 0
    seconds: float = 0.0
    bytes_down: int = 0
    bytes_up: int = 0
    last_seen: float | None = None
    is_failing: bool = False  # whether the last of them failed


class ClientFacts(NamedTuple):
    """A client of a session, with its history."""

    client_id: str
    position: int
    data_path: str | None
    num_examples: int | None
    last_num_examples: float | None
    state_version: str | None
    times_asked: int
    last_asked: int | None
    times_counted: int
    last_counted: int | None
    train_metrics: dict[str, Any]
    validation_metrics: dict[str, Any]


class ReportFacts(NamedTuple):
    """What a client reported with a reply."""

    task_id: str
    round_number: int
    client_id: str
    entry_point: str
    num_examples: float
    size_bytes: int
    metadata: dict[str, Any]


_REPORT = (
    "select tasks.task_id, tasks.round_number, tasks.client_id, tasks.entry_point, updates.num_examples,"
    " updates.size_bytes, updates.metadata"
)


class _Versioned(Reader, Protocol):
    def version(self) -> int: ...


class Overview:
    """Small reads of a store; see the module. A damaged row is left out and told."""

    def __init__(self, database: _Versioned, *, is_read_only: bool = False) -> None:
        self._database = database
        self._is_read_only = is_read_only
        self._rounds: tuple[tuple[str, int], Read] | None = None  # of the last session, if only others write

    # Sessions

    def sessions(self) -> Read:
        """All sessions, newest first."""
        return self._decoded(SESSIONS, "order by created_at desc, session_id desc")

    def round_sums(self) -> dict[str, RoundSums]:
        """By session: the rounds that are done, and the last one."""
        rows = self._database.rows(
            f"select rounds.session_id, sums.done, sums.last, rounds.status from rounds"
            f" join (select session_id, sum(case when status in {_DONE} then 1 else 0 end) as done,"
            " max(round_number) as last from rounds group by session_id) as sums"
            " on sums.session_id = rounds.session_id and sums.last = rounds.round_number"
        )
        return {str(row[0]): RoundSums(int(row[1]), int(row[2]), str(row[3])) for row in rows}

    def round_sums_of(self, session_id: str) -> RoundSums:
        """The rounds of one session that are done, and its last one."""
        rows = self._database.rows(
            f"select sum(case when status in {_DONE} then 1 else 0 end), max(round_number) from rounds"
            " where session_id = :id",
            {"id": session_id},
        )
        done, last = rows[0]
        return RoundSums(int(done or 0), int(last or 0))

    def client_counts(self) -> dict[str, int]:
        """By session: the number of its clients."""
        rows = self._database.rows("select session_id, count(*) from clients group by session_id")
        return {str(row[0]): int(row[1]) for row in rows}

    def sweeps_of(self) -> dict[str, tuple[str, int]]:
        """By session: the sweep and the number of its point."""
        rows = self._database.rows("select session_id, sweep, number from sweep_points where session_id is not null")
        return {str(row[0]): (str(row[1]), int(row[2])) for row in rows}

    def packages(self) -> dict[str, str]:
        """The names of packages by digest."""
        return {str(row[0]): str(row[1]) for row in self._database.rows("select digest, name from packages")}

    def package(self, digest: str) -> PackageRow | None:
        """The row of a package; None: there is none, or it is damaged."""
        rows = self._decoded(PACKAGES, "where digest = :digest", {"digest": digest}).rows
        return rows[0] if rows else None

    def last_metrics(self, session_id: str) -> list[MetricRow]:
        """The aggregates of the newest round that has any, for each phase."""
        rows = self._database.rows(
            f"{METRIC_ROWS.select} join (select phase as last_phase, max(round_number) as last_round from metric_rows"
            " where session_id = :id and cluster = '' group by phase) as newest"
            " on newest.last_phase = metric_rows.phase and newest.last_round = metric_rows.round_number"
            " where metric_rows.session_id = :id and cluster = '' order by phase, metric",
            {"id": session_id},
        )
        return [METRIC_ROWS.decode(row) for row in rows]

    # Rounds

    def rounds(self, session_id: str, *, after: int = -1, before: int | None = None, with_counts: bool = False) -> Read:
        """The rounds of a session in order, with numbers above ``after`` and below ``before``.

        ``with_counts``: also how many clients were asked and counted, which takes most of the time; else these are 0.
        All rounds of a session are kept until the database changes: one page reads them several times.
        """
        key = (session_id, self._database.version()) if self._is_read_only and before is None and after < 0 else None
        if key is not None and not with_counts and self._rounds is not None and self._rounds[0] == key:
            return self._rounds[1]
        found = self._read_rounds(session_id, after=after, before=before, with_counts=with_counts)
        if key is not None and not with_counts:
            self._rounds = key, found
        return found

    def _read_rounds(self, session_id: str, *, after: int, before: int | None, with_counts: bool) -> Read:
        counts = f"{_length('cohort')}, {_length('counted')}" if with_counts else "0, 0"
        return self._lines(
            "select round_number, status,"
            f" {counts},"
            " target, started_at, finished_at, wall_s, num_ok, num_failed, num_examples, model_id, error,"
            " phases, strategy_metrics, averages from rounds"
            " where session_id = :id and round_number > :after and (:below = 0 or round_number < :before)"
            " order by round_number",
            {"id": session_id, "after": after, "below": int(before is not None), "before": before or 0},
            RoundFacts,
            json_columns=(13, 14, 15),
            where=f"round of {session_id}",
        )

    def request_sums(self, session_id: str, *, with_calls: bool = True) -> dict[int, RequestSums]:
        """By round: what its requests sum to; without ``with_calls``, these are 0."""
        calls = f"sum({_length('cohort')})" if with_calls else "0"
        rows = self._database.rows(
            f"select round_number, count(*), {calls}, sum(bytes_down), sum(bytes_up) from requests"
            " where session_id = :id group by round_number",
            {"id": session_id},
        )
        return {int(row[0]): RequestSums(*map(int, row[1:])) for row in rows}

    def task_counts(self, session_id: str, round_number: int) -> dict[tuple[str, str], int]:
        """The number of tasks of a round by entry point and status."""
        rows = self._database.rows(
            "select entry_point, status, count(*) from tasks where session_id = :id and round_number = :round"
            " group by entry_point, status",
            {"id": session_id, "round": round_number},
        )
        return {(str(row[0]), str(row[1])): int(row[2]) for row in rows}

    def tasks_of_round(self, session_id: str, round_number: int) -> list[tuple[str, str, str | None]]:
        """Client, entry point and request of each task of a round that has ended."""
        rows = self._database.rows(
            "select client_id, entry_point, request_id from tasks where session_id = :id and round_number = :round",
            {"id": session_id, "round": round_number},
        )
        return [(str(row[0]), str(row[1]), row[2]) for row in rows]

    # Metrics

    def metric_names(self, session_id: str, *, cluster: str = "") -> list[tuple[str, str, int, int, int]]:
        """Phase, metric, number of rounds, first and last round; over all clients, or those of a cluster."""
        rows = self._database.rows(
            "select phase, metric, count(*), min(round_number), max(round_number) from metric_rows"
            " where session_id = :id and cluster = :cluster group by phase, metric order by phase, metric",
            {"id": session_id, "cluster": cluster},
        )
        return [(str(row[0]), str(row[1]), int(row[2]), int(row[3]), int(row[4])) for row in rows]

    def metric_series(self, session_id: str, phase: str, metric: str, *, cluster: str = "") -> list[MetricRow]:
        """One metric by round; over all clients, or those of a cluster."""
        filters = {"session_id": session_id, "phase": phase, "metric": metric, "cluster": cluster}
        where, parameters = where_of(filters)
        rows = self._database.rows(f"{METRIC_ROWS.select}{where} order by round_number", parameters)
        return [METRIC_ROWS.decode(row) for row in rows]

    def means(self, session_id: str, *, before: int | None) -> list[RoundRow]:
        """Committed rounds with means but without rows of metrics, of an older fedpkg: those before a round, or all.

        Only their numbers, status and metrics are read.
        """
        rows = self._database.rows(
            "select round_number, metrics, train_metrics, averages from rounds where session_id = :id"
            f" and status in {_DONE} and (:all = 1 or round_number < :before)"
            " and (metrics <> '{}' or train_metrics <> '{}') order by round_number",
            {"id": session_id, "all": int(before is None), "before": before or 0},
        )
        return [
            RoundRow(
                session_id=session_id,
                round_number=int(row[0]),
                cohort=[],
                target=0,
                started_at=0.0,
                metrics=json.loads(row[1]),
                train_metrics=json.loads(row[2]),
                averages=json.loads(row[3]),
            )
            for row in rows
        ]

    def validation(self, task_id: str) -> Read:
        """The validation of a task; none if it has none."""
        return self._decoded(VALIDATIONS, "where task_id = :id", {"id": task_id})

    def reports(self, session_id: str, *, round_number: int, limit: int, skip: int) -> tuple[int, Read]:
        """What clients reported with their replies in a round, by client, and how many there are."""
        of_round = {"id": session_id, "round": round_number}
        joined = (
            "from updates join tasks on tasks.task_id = updates.task_id"
            " where tasks.session_id = :id and tasks.round_number = :round"
        )
        total = int(self._database.rows(f"select count(*) {joined}", of_round)[0][0])
        read = self._lines(
            f"{_REPORT} {joined} order by tasks.client_id, tasks.task_id limit :limit offset :skip",
            {**of_round, "limit": limit, "skip": skip},
            ReportFacts,
            json_columns=(6,),
            where=f"reply of {session_id}",
        )
        return total, read

    def validations_of_clients(
        self, session_id: str, clients: Sequence[str], phase: str, *, keys: Sequence[str]
    ) -> Iterator[tuple[str, int, Json]]:
        """Client, round and JSON of all validations of some clients, by round; damaged ones are left out.

        An object of JSON may have these keys alone, as all others need not be decoded.
        """
        decode = decoder_of(keys)
        where, named = where_of({"session_id": session_id, "client_id": clients, "phase": phase})
        found = self._database.rows(
            f"select round_number, task_id, coalesce(length(metrics), 0) from validations{where}"
            " order by round_number, task_id",
            named,
        )
        for batch in _by_size(found):
            where, named = where_of({"task_id": [str(key[1]) for key in batch]})
            for client_id, number, text in self._database.rows(
                f"select client_id, round_number, metrics from validations{where} order by round_number, task_id", named
            ):
                with suppress(ValueError, TypeError):
                    yield str(client_id), int(number), decode(text)

    def each_report(self, session_id: str, *, clients: Sequence[str]) -> Iterator[ReportFacts]:
        """What some clients reported with their replies, by round."""
        where, named = where_of({"tasks.session_id": session_id, "tasks.client_id": clients})
        keys = self._database.rows(
            "select tasks.round_number, tasks.task_id, length(updates.metadata) from updates"
            f" join tasks on tasks.task_id = updates.task_id{where} order by tasks.round_number, tasks.task_id",
            named,
        )
        for batch in _by_size(keys):
            where, named = where_of({"tasks.task_id": [str(key[1]) for key in batch]})
            read = self._lines(
                f"{_REPORT} from updates join tasks on tasks.task_id = updates.task_id{where}"
                " order by tasks.round_number, tasks.task_id",
                named,
                ReportFacts,
                json_columns=(6,),
                where=f"reply of {session_id}",
            )
            yield from read.rows

    # Clients and their tasks

    def clients(self, session_id: str, *, client_id: str | None = None) -> Read:
        """The clients of a session by position, or one of them, with their histories."""
        of_client = "" if client_id is None else " and clients.client_id = :client"
        return self._lines(
            "select clients.client_id, position, data_path, num_examples, last_num_examples, state_version,"
            " coalesce(times_asked, 0), last_asked, coalesce(times_counted, 0), last_counted,"
            " coalesce(train_metrics, '{}'), coalesce(validation_metrics, '{}') from clients"
            " left join client_history as history on history.session_id = clients.session_id"
            " and history.client_id = clients.client_id"
            f" where clients.session_id = :id{of_client} order by position, clients.client_id",
            {"id": session_id, "client": client_id},
            ClientFacts,
            json_columns=(10, 11),
            where=f"client of {session_id}",
        )

    def client_sums(
        self, session_id: str, *, after_round: int = -1, client_id: str | None = None
    ) -> dict[str, ClientSums]:
        """By client: its tasks in the rounds after ``after_round``."""
        # Without the operator, a database would follow the index by client through all rounds.
        of_client, key = ("", "client_id || ''") if client_id is None else (" and client_id = :client", "client_id")
        rows = self._database.rows(
            "select min(client_id), count(*), sum(case when status = 'failed' then 1 else 0 end), sum(wall_s),"
            " sum(bytes_down), sum(bytes_up), max(started_at + wall_s),"
            " max(case when status = 'failed' then started_at end), max(case when status = 'ok' then started_at end)"
            f" from tasks where session_id = :id and round_number > :after{of_client} group by {key}",
            {"id": session_id, "after": after_round, "client": client_id},
        )
        return {
            str(row[0]): ClientSums(
                int(row[1]),
                int(row[2]),
                float(row[3]),
                int(row[4]),
                int(row[5]),
                row[6],
                row[7] is not None and (row[8] is None or row[7] >= row[8]),
            )
            for row in rows
        }

    def failure_counts(self, session_id: str, *, client_id: str | None = None) -> dict[str, int]:
        """By client, of all or of one: the number of its failed tasks."""
        of_client, key = ("", "client_id || ''") if client_id is None else (" and client_id = :client", "client_id")
        rows = self._database.rows(
            f"select min(client_id), count(*) from tasks where session_id = :id and status = 'failed'{of_client}"
            f" group by {key}",
            {"id": session_id, "client": client_id},
        )
        return {str(row[0]): int(row[1]) for row in rows}

    def count_failed(self, session_id: str) -> int:
        """The number of failed tasks."""
        sql = "select count(*) from tasks where session_id = :id and status = 'failed'"
        return int(self._database.rows(sql, {"id": session_id})[0][0])

    def failure_kinds(self, session_id: str) -> list[tuple[int, str, int]]:
        """Round, kind and number of the failed tasks."""
        rows = self._database.rows(
            "select round_number, coalesce(failure, 'failed'), count(*) from tasks"
            " where session_id = :id and status = 'failed' group by round_number, coalesce(failure, 'failed')"
            " order by round_number",
            {"id": session_id},
        )
        return [(int(row[0]), str(row[1]), int(row[2])) for row in rows]

    def failures(
        self,
        session_id: str,
        *,
        client_id: str | None = None,
        kind: str | None = None,
        round_number: int | None = None,
        limit: int,
        skip: int = 0,
    ) -> tuple[int, Read]:
        """Failed tasks, newest first, and how many there are."""
        filters = {"session_id": session_id, "client_id": client_id, "failure": kind, "round_number": round_number}
        where, parameters = where_of(filters)
        where += " and status = 'failed'"  # spelled out for the index of failed tasks
        total = int(self._database.rows(f"select count(*) from tasks{where}", parameters)[0][0])
        order = "order by round_number desc, started_at desc, task_id desc limit :limit offset :skip"
        return total, self._decoded(TASKS, f"{where} {order}", {**parameters, "limit": limit, "skip": skip})

    def task(self, task_id: str) -> Read:
        """A task by its id; none if there is no such task."""
        return self._decoded(TASKS, "where task_id = :id", {"id": task_id})

    def sessions_of_client(self, client_id: str) -> list[str]:
        """Ids of the sessions that have a client of this name, newest first."""
        rows = self._database.rows(
            "select sessions.session_id from sessions join clients on clients.session_id = sessions.session_id"
            " where clients.client_id = :client order by sessions.created_at desc, sessions.session_id desc",
            {"client": client_id},
        )
        return [str(row[0]) for row in rows]

    # Lists that may be long

    def each_validation(
        self,
        session_id: str,
        *,
        round_number: int | None = None,
        client_id: str | None = None,
        phase: str | None = None,
    ) -> Iterator[ValidationRow | str]:
        """Validations by round and task, or the problem of a damaged row; few are in memory at once."""
        filters = {"session_id": session_id, "round_number": round_number, "client_id": client_id, "phase": phase}
        yield from self._each(VALIDATIONS, filters, "coalesce(length(metrics), 0)")

    def each_task(
        self,
        session_id: str,
        *,
        round_number: int | None = None,
        client_id: str | None = None,
        entry_point: str | None = None,
        status: str | None = None,
    ) -> Iterator[TaskRow | str]:
        """Tasks by round and id; as `each_validation`."""
        filters = {"session_id": session_id, "round_number": round_number, "client_id": client_id}
        filters |= {"entry_point": entry_point, "status": status}
        yield from self._each(TASKS, filters, "coalesce(length(log_tail), 0) + coalesce(length(message), 0)")

    def count(self, table: str, session_id: str, **filters: Any) -> int:
        """The number of validations or tasks that match the filters."""
        where, parameters = where_of({"session_id": session_id, **filters})
        return int(self._database.rows(f"select count(*) from {table}{where}", parameters)[0][0])

    def count_all(self, table: str) -> int:
        """The number of rows of a table of the home."""
        return int(self._database.rows(f"select count(*) from {table}")[0][0])

    def _each(self, table: Table[Row], filters: dict[str, Any], size: str) -> Iterator[Row | str]:
        where, parameters = where_of(filters)
        at_round, at_task = -1, ""
        while True:
            keys = self._database.rows(
                f"select round_number, task_id, {size} from {table.name}{where}"
                " and (round_number > :at_round or (round_number = :at_round and task_id > :at_task))"
                " order by round_number, task_id limit :limit",
                {**parameters, "at_round": at_round, "at_task": at_task, "limit": BATCH_ROWS},
            )
            for batch in _by_size(keys):
                of_batch, named = where_of({"task_id": [str(key[1]) for key in batch]})
                read = self._decoded(table, f"{of_batch} order by round_number, task_id", named)
                yield from read.rows
                yield from read.problems
            if len(keys) < BATCH_ROWS:
                return
            at_round, at_task = int(keys[-1][0]), str(keys[-1][1])

    # Models

    def models(
        self,
        session_id: str | None = None,
        *,
        model_id: str | None = None,
        newest_first: bool = False,
        skip: int = 0,
        limit: int | None = None,
    ) -> Read:
        """Models, also of clusters, without the names of their contributors, by session, round and cluster."""
        where, parameters = where_of({"models.session_id": session_id, "models.model_id": model_id})
        down = " desc" * newest_first
        return self._lines(
            "select models.model_id, models.session_id, models.round_number, cluster, parents, parent_id, until_round,"
            f" digest, suffix, size_bytes, created_at, {_ENTRIES}, case when cluster = '' then"
            " coalesce(rounds.num_examples, 0) else models.num_examples end, pruned from models"
            " left join rounds on rounds.session_id = models.session_id and rounds.round_number = models.round_number"
            f"{where} order by models.session_id{down}, models.round_number{down}, cluster{down}"
            + (" limit :limit offset :skip" if limit is not None else ""),
            {**parameters, "limit": limit, "skip": skip},
            ModelFacts,
            json_columns=(4,),
            where="model",
        )

    def model_counts(self, session_id: str | None = None) -> dict[str, int]:
        """By session, the newest first: the number of its models, also of clusters. Of one session or of all."""
        where, parameters = where_of({"models.session_id": session_id})
        rows = self._database.rows(
            f"select counts.session_id, number from (select session_id, count(*) as number from models{where}"
            " group by session_id) as counts left join sessions on sessions.session_id = counts.session_id"
            " order by created_at desc, counts.session_id desc",
            parameters,
        )
        return {str(row[0]): int(row[1]) for row in rows}

    # Trees of combiners

    def combiner_sums(self, session_id: str) -> dict[str, CombinerSums]:
        """By path: what a combiner did in all rounds."""
        rows = self._database.rows(
            "select path, sum(rounds), sum(case when status = 'failed' then 1 else 0 end), sum(bytes_down),"
            " sum(bytes_up), sum(virtual_s) from combiners where session_id = :id group by path",
            {"id": session_id},
        )
        return {str(row[0]): CombinerSums(int(row[1]), int(row[2]), int(row[3]), int(row[4]), row[5]) for row in rows}

    def last_combiners(self, session_id: str) -> dict[str, CombinerRow]:
        """By path: the last row of a combiner."""
        rows = self._database.rows(
            f"{COMBINERS.select} join (select path as last_path, max(round_number) as last_round from combiners"
            " where session_id = :id group by path) as newest"
            " on newest.last_path = combiners.path and newest.last_round = combiners.round_number"
            " where combiners.session_id = :id",
            {"id": session_id},
        )
        return {row.path: row for row in map(COMBINERS.decode, rows)}

    def combiner_rows(self, session_id: str, path: str) -> list[CombinerRow]:
        """What one combiner did, by round."""
        rows = self._database.rows(
            f"{COMBINERS.select} where session_id = :id and path = :path order by round_number",
            {"id": session_id, "path": path},
        )
        return [COMBINERS.decode(row) for row in rows]

    def group_sums(self, session_id: str) -> dict[str, GroupSums]:
        """By group of clients, or path of a combiner: what its requests sum to; of no group: an empty name."""
        rows = self._database.rows(
            f"select coalesce(client_group, ''), sum({_length('cohort')}), sum(num_failed), sum(bytes_down),"
            " sum(bytes_up), sum(coalesce(wall_s, 0)) from requests where session_id = :id"
            " group by coalesce(client_group, '')",
            {"id": session_id},
        )
        return {
            str(row[0]): GroupSums(int(row[1]), int(row[2]), int(row[3]), int(row[4]), float(row[5])) for row in rows
        }

    def group_members(self, session_id: str, *, rounds: int = 20) -> dict[str, list[str]]:
        """By group: the clients whose last request, in the last rounds, was to it, sorted.

        Clusters that are found during a run take their clients from the root.
        """
        rows = self._database.rows(
            "select coalesce(client_group, ''), cohort from requests where session_id = :id"
            " and round_number > (select max(round_number) from requests where session_id = :id) - :rounds"
            " order by round_number, number",
            {"id": session_id, "rounds": rounds},
        )
        group_of = {client: str(group) for group, cohort in rows for client in json.loads(cohort)}
        found: dict[str, list[str]] = {}
        for client, group in sorted(group_of.items()):
            found.setdefault(group, []).append(client)
        return found

    # Changes

    def session_token(self, session_id: str) -> tuple[Any, ...]:
        """Numbers that change when rows of a session change: a few seeks, however large it is."""
        rows = self._database.rows(
            "select updated_at, status, stop_requested,"
            " (select max(round_number) from rounds where rounds.session_id = sessions.session_id)"
            " from sessions where session_id = :id",
            {"id": session_id},
        )
        if not rows:
            return ()
        updated_at, status, stop_requested, last = rows[0]
        where, parameters = where_of({"session_id": session_id, "round_number": last or 0})
        tasks = self._database.rows(f"select count(*) from tasks{where}", parameters)[0][0]
        of_round = self._database.rows(f"select status from rounds{where}", parameters)
        return updated_at, status, bool(stop_requested), last, of_round[0][0] if of_round else None, tasks

    def home_token(self) -> tuple[Any, ...]:
        """Numbers that change when a session or a sweep begins or ends, or commits a round."""
        sessions = self._database.rows("select count(*), max(updated_at) from sessions")[0]
        sweeps = self._database.rows("select count(*), max(updated_at) from sweeps")[0]
        return (*sessions, *sweeps)

    # Reading

    def _decoded(self, table: Table[Row], rest: str, parameters: dict[str, Any] | None = None) -> Read:
        read = Read([])
        for row in self._database.rows(f"{table.select} {rest}", parameters or {}):
            try:
                read.rows.append(table.decode(row))
            except StoreError as error:
                read.problems.append(error.message)
        return read

    def _lines(
        self, sql: str, parameters: dict[str, Any], kind: Any, *, json_columns: Sequence[int], where: str
    ) -> Read:
        read = Read([])
        for row in self._database.rows(sql, parameters):
            values = list(row)
            try:
                for column in json_columns:
                    values[column] = json.loads(values[column])
                    if not isinstance(values[column], (dict, list)):
                        raise TypeError(f"it is {values[column]!r:.100}")
                read.rows.append(kind(*values))
            except (ValueError, TypeError, RecursionError) as error:
                read.problems.append(f"the database is damaged: {where}, {row[0]!r:.100}, cannot be read: {error}")
        return read


def decoder_of(keys: Sequence[str]) -> Callable[[str], Json]:
    """Decodes these keys of an object, and of other JSON all, several times as fast as `json.loads`."""
    fields = [(f"key_{number}", Any, msgspec.field(default=msgspec.UNSET, name=key)) for number, key in enumerate(keys)]
    try:
        decoder = msgspec.json.Decoder(msgspec.defstruct("Keys", fields))
    except ValueError:  # a key has quotes, backslashes or control characters
        return json.loads

    def decode(text: str) -> Json:
        try:
            found = msgspec.structs.astuple(decoder.decode(text))
        except (msgspec.MsgspecError, UnicodeError, RecursionError):  # a list, NaN, or what only Python reads as JSON
            told: Json = json.loads(text)
            return told
        return {key: value for key, value in zip(keys, found, strict=True) if value is not msgspec.UNSET}

    return decode


def _by_size(keys: Sequence[Sequence[Any]]) -> Iterator[Sequence[Sequence[Any]]]:
    """Batches of at most `BATCH_BYTES` of JSON, and 200 rows (databases bound the parameters of a statement)."""
    start, size = 0, 0
    for number, key in enumerate(keys):
        if number > start and (size + int(key[2]) > BATCH_BYTES or number - start >= 200):
            yield keys[start:number]
            start, size = number, 0
        size += int(key[2])
    if keys:
        yield keys[start:]
