"""What is SQLite's own: opening, migrations, damage, and processes that die or work at the same time."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from fedpkg.errors import StoreError
from fedpkg.stores.base import ModelRow, PackageRow, SessionRow
from fedpkg.stores.database import MIGRATIONS, migrate
from fedpkg.stores.sqlite import SqliteDatabase, SqliteStore

NEWEST = max(int(file.name[:4]) for file in MIGRATIONS.glob("*.sql"))
# What the subprocesses of these tests share: a store with a session, and a function that records a task.
WRITER = """
import os, resource, sys
from pathlib import Path
from fedpkg.stores.base import *
from fedpkg.stores.sqlite import SqliteStore

def prepare(path):
    store = SqliteStore(Path(path))
    store.add_package(PackageRow(digest="p", name="p", size_bytes=1, entry_points={}, created_at=1.0))
    store.create_session(SessionRow(session_id="s", name="s", config={}, package_digest="p", seed=1, num_rounds=1,
                                    created_at=1.0, updated_at=1.0))
    return store

def rows(number, log_tail=None):
    return (
        TaskRow(task_id=f"t-{number}", session_id="s", round_number=1, client_id="c", position=number, wall_s=1.0,
                entry_point="train", attempt=1, status="ok", started_at=1.0, log_tail=log_tail),
        UpdateRow(task_id=f"t-{number}", path="/p", size_bytes=1, num_examples=1.0))

def record(store, number, log_tail=None):
    task, update = rows(number, log_tail)
    store.record_task(task, update=update)
    store.list_sessions()  # it is written before that
"""


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", WRITER + code, *map(str, arguments)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "Heim & Küche #1?"
    folder.mkdir()
    return folder / "state.db"


def add(store: SqliteStore, session_id: str, *, seed_model: ModelRow | None = None) -> None:
    store.add_package(PackageRow(digest="p", name="p", size_bytes=1, entry_points={}, created_at=1.0))
    store.create_session(
        SessionRow(
            session_id=session_id,
            name="s",
            config={},
            package_digest="p",
            seed=1,
            num_rounds=1,
            created_at=1.0,
            updated_at=1.0,
        ),
        seed_model=seed_model,
    )


def model(session_id: str, number: int) -> ModelRow:
    facts = {"digest": "d" * 64, "suffix": ".npz", "size_bytes": 1, "created_at": 1.0}
    return ModelRow(session_id=session_id, round_number=number, keys="names", **facts)  # type: ignore[arg-type]


def version(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("select version from schema_version").fetchone()[0])
    finally:
        connection.close()


# --- opening and migrating


def test_no_two_migrations_have_one_number() -> None:
    numbers = [int(file.name[:4]) for file in MIGRATIONS.glob("*.sql")]
    assert len(set(numbers)) == len(numbers), "one of the two would never run"


def test_models_from_before_buffers_were_kept_have_none(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "migrations"
    folder.mkdir()
    shutil.copy(MIGRATIONS / "0001_first.sql", folder)
    database = SqliteDatabase(path)
    migrate(database, folder=folder)
    with database.transaction() as transaction:
        transaction.run("insert into packages values ('p', 'p', 1, '{}', 1.0)")
        transaction.run("insert into sessions values ('s', 's', 'finished', '{}', 'p', 1, 1, 1.0, 1.0, null, false)")
        transaction.run("insert into models values ('s.0', 'd', null, 's', 0, '.npz', 'names', 9, '[]', 1.0)")
    database.close()
    with SqliteStore(path) as store:
        assert (store.get_model("s.0").buffers, store.get_model("s.0").size_bytes) == ([], 9)


def test_rounds_from_before_requests_have_one_each(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "migrations"
    folder.mkdir()
    for file in MIGRATIONS.glob("000[1-4]_*.sql"):
        shutil.copy(file, folder)
    database = SqliteDatabase(path)
    migrate(database, folder=folder)
    with database.transaction() as transaction:
        transaction.run("insert into packages values ('p', 'p', 1, '{}', 1.0)")
        columns = "session_id, name, status, config, package_digest, seed, num_rounds, created_at, updated_at"
        transaction.run(
            f"insert into sessions ({columns}, stop_requested) values ('s', 's', 'x', '{{}}', 'p', 1, 9, 1, 1, false)"
        )
        rounds = {1: ("finished", '["a"]'), 2: ("training", '["b"]'), 3: ("training", None), 4: ("failed", '["a"]')}
        for number, (status, counted) in rounds.items():
            transaction.run(
                "insert into rounds values ('s', :number, :status, '[\"a\",\"b\"]', 1, :counted, 5.0, null, null, 1, 1,"
                " 2.0, '{}', '{}', null, '{}', null)",
                {"number": number, "status": status, "counted": counted},
            )
        for entry_point in ("train", "validate"):
            values = f"'{entry_point}', 's', 2, 'a', 0, '{entry_point}', 1, 'ok', null, null, null, null, 6.0, 0.5"
            transaction.run(f"insert into tasks values ({values}, null, null, null, null, '{{}}')")
        transaction.run("insert into updates values ('train', '/out.npz', 77, 2.0, '{}')")
    database.close()
    with SqliteStore(path) as store:
        requests = store.list_requests("s")
        tasks = store.list_tasks("s")
        assert store.check() == []
    assert [(row.request_id, row.status, row.counted) for row in requests] == [
        ("train-1", "answered", ["a"]),
        ("train-2", "answered", ["b"]),
        ("train-3", "asked", None),
        ("train-4", "failed", None),
    ]
    assert {(tuple(row.cohort), row.target, row.entry_point, row.number) for row in requests} == {
        (("a", "b"), 1, "train", 1)
    }
    assert [(task.request_id, task.bytes_up) for task in tasks] == [("train-2", 77), (None, 0)]


def test_empty_file_becomes_a_database_and_opens_again(path: Path) -> None:
    path.touch()
    for _ in range(2):
        with SqliteStore(path) as store:
            assert store.list_sessions() == []
    assert version(path) == NEWEST


def test_database_of_a_newer_fedpkg_is_refused(path: Path) -> None:
    SqliteStore(path).close()
    connection = sqlite3.connect(path)
    connection.execute("update schema_version set version = 99")
    connection.commit()
    connection.close()
    for read_only in (False, True):
        with pytest.raises(StoreError, match="written by a newer fedpkg: its schema is 99") as caught:
            SqliteStore(path, read_only=read_only)
        assert "upgrade fedpkg" in str(caught.value)


def test_failed_migration_leaves_the_version_before_it(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, folder)
    (folder / f"{NEWEST + 1:04}_bad.sql").write_text(
        "-- half; of it works\ncreate table half (a text);\ncreate table half (a text);"
    )
    database = SqliteDatabase(path)
    with pytest.raises(StoreError, match="half already exists"):
        migrate(database, folder=folder)
    assert not database.has_table("half")
    assert version(path) == NEWEST
    (folder / f"{NEWEST + 1:04}_bad.sql").write_text("create table whole (a text);")
    migrate(database, folder=folder)
    assert database.has_table("whole")
    assert version(path) == NEWEST + 1
    database.close()


def test_an_older_database_is_copied_before_it_is_changed(path: Path, tmp_path: Path) -> None:
    older = tmp_path / "older"
    older.mkdir()
    for file in MIGRATIONS.glob("000[1-4]_*.sql"):
        shutil.copy(file, older)
    database = SqliteDatabase(path)
    migrate(database, folder=older)
    assert [one.name for one in path.parent.glob("*.db")] == ["state.db"], "a new database is no older one"
    with database.transaction() as transaction:
        transaction.run("insert into packages values ('p', 'p', 1, '{}', 1.0)")
    with SqliteStore(path) as store:  # while the other connection is open: what is in the log is copied, too
        assert store.check() == []
    database.close()
    copy = path.with_name("state.schema-4.db")
    assert (version(copy), version(path)) == (4, NEWEST)
    before = copy.read_bytes()
    SqliteStore(path).close()
    assert copy.read_bytes() == before
    shutil.copy(copy, path)  # to go back, it is put in the place of the database
    with SqliteStore(path) as store:
        assert store.check() == []
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("select name from packages").fetchall() == [("p",)]


def test_an_older_database_that_cannot_be_copied_stays_as_it_is(path: Path, tmp_path: Path) -> None:
    older = tmp_path / "older"
    older.mkdir()
    shutil.copy(MIGRATIONS / "0001_first.sql", older)
    database = SqliteDatabase(path)
    migrate(database, folder=older)
    database.close()
    path.with_name("state.schema-1.db").mkdir()
    with pytest.raises(StoreError, match="cannot be copied before its schema is changed") as caught:
        SqliteStore(path)
    assert "free space" in str(caught.value)
    assert version(path) == 1


def test_reader_does_not_migrate(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, folder)
    (folder / f"{NEWEST + 1:04}_more.sql").write_text("create table more (a text);")
    SqliteStore(path).close()
    database = SqliteDatabase(path, read_only=True)
    with pytest.raises(StoreError, match=f"older fedpkg: its schema is {NEWEST}, the current one {NEWEST + 1}"):
        migrate(database, folder=folder, read_only=True)
    database.close()


def test_several_processes_open_a_new_database_at_once(path: Path) -> None:
    code = "sys.stdin.read(1); store = SqliteStore(Path(sys.argv[1])); store.list_sessions(); store.close()"
    processes = [subprocess.Popen(python(code, path), stdin=subprocess.PIPE) for _ in range(5)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"g")
        process.stdin.close()
    assert [process.wait(60) for process in processes] == [0] * 5


# --- readers


def test_reader_sees_what_a_writer_commits_and_writes_nothing(path: Path) -> None:
    with SqliteStore(path) as writer, SqliteStore(path, read_only=True) as reader:
        assert reader.list_sessions() == []
        add(writer, "s")
        assert [row.session_id for row in reader.list_sessions()] == ["s"]
        with pytest.raises(StoreError, match="cannot be written"):
            reader.request_stop("s")


def test_reader_of_no_database_makes_none(path: Path) -> None:
    with pytest.raises(StoreError, match="no state database"):
        SqliteStore(path, read_only=True)
    assert list(path.parent.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_finished_home_of_a_colleague_can_be_read() -> None:
    code = """
import os
SqliteStore(Path(sys.argv[1])).close()  # while the standard library may still be read
os.setgroups([]); os.setgid(65534); os.setuid(65534)
store = SqliteStore(Path(sys.argv[1]), read_only=True)
print(store.list_sessions()[0].session_id)
store.close()
"""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        path = Path(folder) / "state.db"
        with SqliteStore(path) as store:
            add(store, "s")
        Path(folder).chmod(0o755)
        output = subprocess.run(python(code, path), capture_output=True, text=True, check=False, timeout=60)
    assert output.stdout == "s\n", output.stderr


# --- damage


def test_file_that_is_no_database_is_named(path: Path) -> None:
    path.write_bytes(b"this is a letter, not a database\n" * 100)
    with pytest.raises(StoreError, match=r"state\.db is not a database") as caught:
        SqliteStore(path)
    assert "restore a copy" in str(caught.value)


def test_damaged_database_is_named(path: Path) -> None:
    with SqliteStore(path) as store:
        add(store, "s")
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (path.stat().st_size - 4096))
    with pytest.raises(StoreError, match="damaged"), SqliteStore(path) as store:
        store.list_sessions()


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ("update sessions set config = 'x'", r"sessions\.config of session_id 's'"),
        ("update sessions set config = '[]'", r"sessions\.config"),
        ("update sessions set session_id = x'ff00'", r"sessions\.session_id"),
        ("update sessions set num_rounds = 'many'", r"sessions\.num_rounds"),
        ("update sessions set created_at = 'today'", r"sessions\.created_at"),
        ("update models set round_number = -1", "a row of models"),
        ("update models set contributors = 'null'", r"models\.contributors"),
        ("update strategy_states set state = '-1'", "strategy's state"),
        ("update schema_version set version = 'new'", "schema_version"),
    ],
)
def test_row_that_somebody_changed_is_named(path: Path, change: str, place: str) -> None:
    with SqliteStore(path) as store:
        add(store, "s", seed_model=model("s", 0))
    connection = sqlite3.connect(path)
    connection.execute("insert into strategy_states (session_id, step, state) values ('s', 0, '{}')")
    connection.execute(change)
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match=rf"the database is damaged.*{place}") as caught, SqliteStore(path) as store:
        store.list_sessions()
        store.list_models()
        store.load_strategy_state("s")
    assert "restore a copy" in str(caught.value)


def test_trail_of_models_that_name_each_other_ends(path: Path) -> None:
    with SqliteStore(path) as store:
        add(store, "s", seed_model=model("s", 0))
    connection = sqlite3.connect(path)
    connection.execute("update models set parent_id = model_id")
    connection.commit()
    connection.close()
    with SqliteStore(path) as store:
        assert {row.model_id for row in store.model_trail("s.0")} == {"s.0"}


def test_database_that_lost_its_log_is_no_older_one(path: Path) -> None:
    sqlite3.connect(path).execute("pragma journal_mode = wal").connection.close()
    with pytest.raises(StoreError, match=r"is empty.*state\.db-wal"):
        SqliteStore(path, read_only=True)


def test_missing_folder_is_named(path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be opened") as caught:
        SqliteStore(path.parent / "nowhere" / "state.db")
    assert "--home" in str(caught.value)


def test_closed_store_says_so(path: Path) -> None:
    store = SqliteStore(path)
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.list_sessions()
    with pytest.raises(StoreError, match="closed"):
        store.request_stop("s")


def test_full_disk_is_an_error_and_what_was_recorded_stays(path: Path) -> None:
    # A limit on the size of files stands in for the full disk: writes fail in the middle of a transaction.
    code = """
from fedpkg.errors import StoreError
store = prepare(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))
number = 0
try:
    while number < 1000:
        record(store, number, "x" * 20_000)
        number += 1
except StoreError as error:
    reader = SqliteStore(Path(sys.argv[1]), read_only=True)  # the other one has a row that it could not write
    print(number, len(reader.list_tasks("s")), error.hint)
    os._exit(0)
"""
    output = subprocess.run(python(code, path), capture_output=True, text=True, check=True, timeout=60).stdout
    reported, found, hint = output.split(maxsplit=2)
    assert 0 < int(reported) < 1000
    assert found == reported
    assert "free space" in hint
    with SqliteStore(path) as store:
        assert len(store.list_tasks("s")) == int(reported)


# --- dying


def test_kill_in_a_stream_of_transactions_loses_nothing_that_was_reported(path: Path) -> None:
    code = """
store = prepare(sys.argv[1])
for number in range(1_000_000):
    record(store, number)
    print(number, flush=True)
"""
    with subprocess.Popen(python(code, path), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 300:
                process.kill()
                break
        reported = [300, *(int(line) for line in process.stdout if line.endswith("\n"))][-1] + 1
    with SqliteStore(path) as store:
        tasks, updates = store.list_tasks("s"), store.list_updates("s", 1)
    assert reported <= len(tasks) <= reported + 1
    assert [row.task_id for row in tasks] == [row.task_id for row in updates] == [f"t-{n}" for n in range(len(tasks))]


def test_kill_loses_tasks_that_wait_to_be_written_and_nothing_else(path: Path) -> None:
    code = """
from fedpkg.stores import write_behind
write_behind.WITHIN_S = 1000.0  # no timer interferes
store = prepare(sys.argv[1])
for number in range(30):
    task, update = rows(number)
    store.record_task(task, update=update)
    if number == 19:
        store.request_stop("s")  # as any other call, it comes after what was recorded before
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run(python("import os, signal" + code, path), timeout=60)
    assert ended.returncode == -signal.SIGKILL
    with SqliteStore(path) as store:
        tasks, updates = store.list_tasks("s"), store.list_updates("s")
        assert store.stop_requested("s")
    assert [row.task_id for row in tasks] == [row.task_id for row in updates] == [f"t-{n}" for n in range(20)]


def test_tasks_are_written_without_another_call(path: Path) -> None:
    code = """
store = prepare(sys.argv[1])
task, update = rows(0)
store.record_task(task, update=update)
print("recorded", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(python(code, path), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "recorded\n"
        with SqliteStore(path, read_only=True) as store:
            while not store.list_tasks("s"):  # by another process, which does nothing any more
                assert process.poll() is None
        process.stdin.close()


def test_tasks_that_cannot_be_written_are_told_by_the_next_call(path: Path) -> None:
    code = """
from fedpkg.errors import StoreError
from fedpkg.stores import write_behind
write_behind.WITHIN_S = 1000.0
store = prepare(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
for number in range(100):
    task, update = rows(number, "x" * 20_000)
    store.record_task(task, update=update)
for _ in range(2):
    try:
        store.request_stop("s")
    except StoreError as error:
        print(error.hint)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.request_stop("s")  # now there is room
store.close()
"""
    output = subprocess.run(python(code, path), capture_output=True, text=True, check=True, timeout=60).stdout
    assert output.count("free space") == 2, "as long as they wait, nothing is built on them"
    with SqliteStore(path) as store:
        assert store.stop_requested("s") and len(store.list_tasks("s")) == 100


def test_interrupt_inside_a_transaction_undoes_it(path: Path) -> None:
    with SqliteStore(path) as store:
        add(store, "s")
        database = SqliteDatabase(path)

        def interrupted(durable: bool) -> None:
            with database.transaction(durable=durable) as transaction:
                transaction.run("update sessions set name = 'changed'")
                raise KeyboardInterrupt

        for durable in (False, True):
            with pytest.raises(KeyboardInterrupt):
                interrupted(durable)
        store.request_stop("s")  # nothing is left locked
        assert store.get_session("s").name == "s"
        database.close()


def test_round_is_committed_durably_and_other_writes_are_not_slowed(path: Path) -> None:
    database = SqliteDatabase(path)

    def synchronous() -> int:
        return int(database.rows("pragma synchronous")[0][0])

    normal, full = 1, 2
    assert synchronous() == normal
    with database.transaction(durable=True):
        assert synchronous() == full
    with database.transaction():
        assert synchronous() == normal
    database.close()


def test_importing_the_store_loads_no_numpy_and_no_torch() -> None:
    code = "import fedpkg.stores.home, fedpkg.stores.models; sys.exit('numpy' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run(python(code), check=False, timeout=60).returncode == 0


@pytest.mark.parametrize("read_only", [False, True])
def test_folder_in_the_place_of_the_database_is_named_as_one(tmp_path: Path, read_only: bool) -> None:
    path = tmp_path / "state.db"
    path.mkdir()
    with pytest.raises(StoreError, match=r"state\.db is a folder, where the state database should be") as caught:
        SqliteStore(path, read_only=read_only)
    assert "--home" in (caught.value.hint or "")
