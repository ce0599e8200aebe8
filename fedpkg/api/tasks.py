"""Tasks: those that run, those that failed with their logs and the command to repeat them, and all of a session."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import msgspec

from fedpkg.api.asking import Limit, Ref, RoundNumber, Skip, Text, question
from fedpkg.api.clients import in_flight
from fedpkg.api.files import tail_of
from fedpkg.api.opening import Opened, Page, Struct
from fedpkg.compute_package.arguments import format_arguments
from fedpkg.errors import ConfigError, NotFound, PackageError
from fedpkg.stores.base import TaskRow
from fedpkg.stores.uploads import Uploads
from fedpkg.waist.place import STARTUP, is_of_startup, last_told, log_of, session_folder
from fedpkg.waist.slots import occupied_slots

if TYPE_CHECKING:
    from fedpkg.stores.base import SessionRow

_LONGEST_LINE = 400
LogBytes: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=2_000_000)]


class Task(Struct, frozen=True, kw_only=True):
    """One attempt at one call of an entry point that has ended.

    ``failure`` is the kind of a failure, and ``last_line`` is then the last line of the log, if ``message`` lacks it.
    """

    task_id: str
    round_number: int
    client_id: str
    entry_point: str
    attempt: int
    status: str
    started_at: float
    seconds: float
    failure: str | None
    message: str | None
    last_line: str | None
    exit_code: int | None
    signal: int | None
    request_id: str | None
    bytes_down: int
    bytes_up: int
    phases: dict[str, float]


class TaskDetail(Struct, frozen=True, kw_only=True):
    """A task with what helps to repeat it: from the folder above the home, ``repeat`` calls it again.

    ``folder`` is the task's folder from the home; None: it is gone. ``log_tail`` is the end of its log, as recorded.
    """

    session_id: str
    task: Task
    folder: str | None
    command: str | None
    repeat: str | None
    log_tail: str | None
    logs: dict[str, int]  # name → bytes


class Log(Struct, frozen=True, kw_only=True):
    """The end of a task's log; ``is_whole``: nothing was before it. Bytes that are not UTF-8 are replaced."""

    name: str
    size_bytes: int
    is_whole: bool
    text: str


class FailureKind(Struct, frozen=True, kw_only=True):
    """How many tasks failed in one way; ``by_round`` has a pair of numbers for each round that has any."""

    kind: str
    total: int
    by_round: list[tuple[int, int]]


class InFlight(Struct, frozen=True, kw_only=True):
    """A task that has held a slot (from 0) of this machine since then."""

    slot: int
    client_id: str
    entry_point: str
    round_number: int
    task_id: str
    since: float


class Flying(Struct, frozen=True, kw_only=True):
    """The tasks in flight: asked, and without an answer. ``running``: those that hold a slot, by slot. The others wait.

    ``slots`` is the number of tasks that run at the same time, as configured; None: as many as the machine has room
    for.
    """

    slots: int | None
    total: int
    running: list[InFlight]
    waiting: int


@question
def list_failures(
    at: Opened,
    ref: Ref,
    *,
    client_id: Text | None = None,
    kind: Text | None = None,
    round_number: RoundNumber | None = None,
    skip: Skip = 0,
    limit: Limit = 50,
) -> Page[Task]:
    """The failed tasks of a session, newest first."""
    session_id = at.session(ref).session_id
    total, read = at.overview.failures(
        session_id, client_id=client_id, kind=kind, round_number=round_number, limit=limit, skip=skip
    )
    return Page(total=total, skip=skip, items=[task_of(row) for row in read.rows], notes=at.notes(read))


@question
def failure_kinds(at: Opened, ref: Ref) -> list[FailureKind]:
    """The failed tasks of a session by kind and round, the most frequent kind first."""
    found: dict[str, list[tuple[int, int]]] = {}
    for number, kind, count in at.overview.failure_kinds(at.session(ref).session_id):
        found.setdefault(kind, []).append((number, count))
    kinds = [
        FailureKind(kind=kind, total=sum(count for _, count in by_round), by_round=by_round)
        for kind, by_round in found.items()
    ]
    return sorted(kinds, key=lambda one: (-one.total, one.kind))


@question
def list_tasks(
    at: Opened,
    ref: Ref,
    *,
    round_number: RoundNumber | None = None,
    client_id: Text | None = None,
    entry_point: Text | None = None,
    status: Literal["ok", "failed", "cancelled"] | None = None,
) -> Iterator[Task]:
    """All tasks of a session that match, by round; the list is sent bit by bit. Damaged rows are left out."""
    session_id = at.session(ref).session_id
    rows = at.overview.each_task(
        session_id, round_number=round_number, client_id=client_id, entry_point=entry_point, status=status
    )
    return (task_of(row) for row in rows if isinstance(row, TaskRow))


@question
def get_task(at: Opened, task_id: Text) -> TaskDetail:
    """One task with its logs and the command that repeats it. Raises NotFound."""
    row = _row(at, task_id)
    session = at.store.get_session(row.session_id)
    folder = _folder(at, row)
    return TaskDetail(
        session_id=row.session_id,
        task=task_of(row),
        folder=None if folder is None else str(folder.relative_to(at.home.root)),
        command=None if row.command is None else at.told(row.command),
        repeat=None if folder is None else repeat_command(at, session, row, folder),
        log_tail=row.log_tail,
        logs={} if folder is None else _logs(folder),
    )


@question
def get_log(at: Opened, task_id: Text, name: Text = "stderr.log", *, size: LogBytes = 100_000) -> Log:
    """The end of a log of a task.

    Args:
        name: one of the names in ``logs`` of the task.
        size: most bytes of the answer.

    Raises:
        NotFound: there is no such task or log.
    """
    row = _row(at, task_id)
    folder = _folder(at, row)
    if folder is None or name not in (known := _logs(folder)):
        raise NotFound(f"task {task_id!r:.200} has no log {name!r:.100}", hint="get_task names its logs")
    text, is_whole = tail_of(at.home.root, folder / name, size)
    return Log(name=name, size_bytes=known[name], is_whole=is_whole, text=text)


@question
def tasks_in_flight(at: Opened, ref: Ref) -> Flying:
    """The tasks of a running session that were asked and have not ended."""
    session = at.session(ref)
    flying = in_flight(at, session, at.overview.round_sums_of(session.session_id).last_round)
    is_running = session.session_id in at.running()
    running = [
        InFlight(
            slot=one.slot,
            client_id=one.client_id,
            entry_point=one.entry_point,
            round_number=one.round_number,
            task_id=one.task_id,
            since=one.since,
        )
        for one in occupied_slots(at.home.root)
        if is_running and one.session_id == session.session_id
    ]
    executor = session.config.get("executor")
    slots = executor.get("workers") if isinstance(executor, dict) else None
    total = max(len(flying), len(running))
    return Flying(
        slots=slots if isinstance(slots, int) else None, total=total, running=running, waiting=total - len(running)
    )


def task_of(row: TaskRow) -> Task:
    last_line = last_told(row.log_tail)[:_LONGEST_LINE] if row.failure else ""
    return Task(
        task_id=row.task_id,
        round_number=row.round_number,
        client_id=row.client_id,
        entry_point=row.entry_point,
        attempt=row.attempt,
        status=row.status,
        started_at=row.started_at,
        seconds=row.wall_s,
        failure=row.failure,
        message=row.message,
        last_line=last_line if last_line and last_line not in (row.message or "") else None,
        exit_code=row.exit_code,
        signal=row.signal,
        request_id=row.request_id,
        bytes_down=row.bytes_down,
        bytes_up=row.bytes_up,
        phases=row.phases,
    )


def _row(at: Opened, task_id: str) -> TaskRow:
    read = at.overview.task(task_id)
    if not read.rows:
        raise NotFound("; ".join(read.problems) or f"there is no task {task_id!r:.200}", hint="list_tasks names them")
    row: TaskRow = read.rows[0]
    return row


def _folder(at: Opened, row: TaskRow) -> Path | None:
    """The folder of a task, if it is there and in the session's folder of the home."""
    if row.folder is None:
        return None
    folder, above = at.home.root / row.folder, session_folder(at.home.root, row.session_id)
    try:
        inside = folder.resolve(strict=True).is_relative_to(above.resolve(strict=True))
    except (OSError, RuntimeError):
        return None
    return folder if inside and folder.is_relative_to(at.home.root) and folder.is_dir() else None


def _logs(folder: Path) -> dict[str, int]:
    found = {}
    for first in (True, False):
        for stream in ("stdout", "stderr"):
            path = log_of(folder, stream, of_startup=first)
            if path.is_file() and not path.is_symlink():
                found[path.name] = path.stat().st_size
    return found


def repeat_command(at: Opened, session: SessionRow, row: TaskRow, folder: Path) -> str:
    """The command that calls a task's entry point again, from the folder above the home."""
    given = session.config.get("arguments")
    given = given if isinstance(given, dict) else {}
    is_startup = row.message is not None and is_of_startup(row.message)
    arguments = {} if is_startup else {**given.get("all", {}), **given.get(row.entry_point, {})}
    task = f"{at.home.root.name}/{folder.relative_to(at.home.root)}"
    words = [
        "fedpkg",
        "package",
        "call",
        _package(at, session),
        STARTUP if is_startup else row.entry_point,
        "--task",
        task,
    ]
    isolate = session.config.get("isolate")
    words += ["--isolate"] if isinstance(isolate, dict) and isolate.get("enabled") else []
    try:
        flags = format_arguments(arguments)
    except (ConfigError, TypeError, ValueError):  # a damaged configuration
        flags = []
    return shlex.join([*words, *(["--", *flags] if flags else [])])


def _package(at: Opened, session: SessionRow) -> str:
    """The package of a session from the folder above the home: its source, or else its copy in the home."""
    source = at.shown_path(Uploads(at.home).told(str(session.config.get("package", ""))))
    if not source.startswith("…"):
        return source
    with suppress(PackageError):
        from fedpkg.compute_package.unpack import unpacked_members  # takes long, and few ask

        folder, _ = unpacked_members(session.package_digest, at.home.packages)
        return f"{at.home.root.name}/{folder.relative_to(at.home.root)}"
    return source
