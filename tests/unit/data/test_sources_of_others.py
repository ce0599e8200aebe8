"""Sources that need large libraries or a server: a saved `datasets.Dataset`, and PostgreSQL (`make soak`)."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedpkg.analytics.databases import read
from fedpkg.data.sources.opening import OpenedSource
from fedpkg.errors import DataError
from tests.unit.data.reading import read_dataset

pytestmark = pytest.mark.soak


def test_a_saved_dataset_becomes_arrays(tmp_path: Path) -> None:
    datasets: Any = pytest.importorskip("datasets")
    kinds = {
        "a": datasets.Value("float32"),
        "b": datasets.Value("int64"),
        "label": datasets.ClassLabel(names=["n", "y"]),
    }
    values = {"a": [1.0, 2.0, 3.0], "b": [4, 5, 6], "label": [0, 1, 0]}
    table = datasets.Dataset.from_dict(values, features=datasets.Features(kinds))
    table.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": table, "test": table.select([1])}).save_to_disk(tmp_path / "two")
    found = read_dataset({"name": "saved_dataset", "path": str(tmp_path / "one")})
    assert found.arrays["x_train"].tolist() == [[1, 4], [2, 5], [3, 6]]
    assert (found.labels("train").tolist(), found.classes) == ([0, 1, 0], ("n", "y"))
    assert read_dataset({"name": "saved_dataset", "path": str(tmp_path / "two")}).labels("test").tolist() == [1]
    with pytest.raises(DataError, match="it has no column 'lable'; did you mean 'label'"):
        read_dataset({"name": "saved_dataset", "path": str(tmp_path / "one"), "label": "lable"})
    one, two = (OpenedSource({"name": "saved_dataset", "path": str(tmp_path / name)}) for name in ("one", "two"))
    assert one.fingerprint() != two.fingerprint()


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a PostgreSQL server on a socket of its own, with a table ``people``."""
    psycopg: Any = pytest.importorskip("psycopg")
    if shutil.which("initdb") is None or shutil.which("pg_ctl") is None:
        pytest.skip("there is no PostgreSQL server here")
    user = ["runuser", "-u", "nobody", "--"] if os.getuid() == 0 else []  # it refuses to run as root
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as folder:  # sockets have short paths
        if user:
            shutil.chown(folder, "nobody")
        quiet: Any = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
        subprocess.run([*user, "initdb", "-D", f"{folder}/d", "-A", "trust", "-U", "me"], **quiet)
        control = [*user, "pg_ctl", "-D", f"{folder}/d", "-w", "-l", f"{folder}/log"]
        subprocess.run([*control, "-o", f"-k {folder} -c listen_addresses=", "start"], **quiet)
        try:
            address = f"postgresql://me@/postgres?host={folder}"
            with psycopg.connect(address) as connection:
                connection.execute("CREATE TABLE people (age int, height float8, ward text, label text)")
                rows = "(30, 1.5, 'north', 'ill'), (41, 1.75, 'so\"u,th', 'well'), (52, 2, 'north', 'ill')"
                connection.execute(f"INSERT INTO people VALUES {rows}")
            yield address
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], **quiet)


def test_a_query_on_postgresql_is_read_and_can_change_nothing(server: str) -> None:
    import psycopg

    found = read_dataset(
        {"name": "sql", "database": server, "query": "SELECT * FROM people ORDER BY 1", "other": ["ward"]}
    )
    assert found.arrays["x_train"].tolist() == [[30, 1.5], [41, 1.75], [52, 2]]
    assert (found.classes, found.columns["ward"].tolist()) == (("ill", "well"), [0, 1, 0])
    for query in (
        "DELETE FROM people",
        "SELECT 1; DROP TABLE people",
        "SELECT 1) q; DROP TABLE people; SELECT * FROM (SELECT 2",
        "WITH x AS (DELETE FROM people RETURNING *) SELECT * FROM x",
        "SELECT * FROM people) TO STDOUT; DROP TABLE people; COPY (SELECT * FROM people",
        "SELECT * FROM nobody",
    ):
        with pytest.raises(DataError, match="the query failed"):
            read_dataset({"name": "sql", "database": server, "query": query})
    with psycopg.connect(server) as connection:
        assert connection.execute("SELECT count(*) FROM people").fetchone() == (3,)


def test_a_database_that_cannot_be_reached_is_an_error() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(DataError, match="no connection: "):
        read_dataset({"name": "sql", "database": "postgresql://me@127.0.0.1:1/x", "query": "SELECT 1 AS label"})


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://me:secret@h/x", "dataset postgresql://me:…@h/x: the address of the database has a password"),
        ("postgresql://h/x?user=me&password=secret", "the address of the database has a password"),
        ("postgresql://h/x?passwor%64=secret", "the address of the database has a password"),
        ("postgresql://me:sec@ret@h/x", "the address of the database has a password"),
        ("postgresql://[h/x", "the address of the database is wrong: Invalid IPv6 URL"),
    ],
)
def test_an_address_with_a_password_is_refused_and_not_shown(url: str, words: str) -> None:
    with pytest.raises(DataError) as caught:
        read_dataset({"name": "sql", "database": url, "query": "SELECT 1 AS label"})
    assert words in str(caught.value)
    assert "secret" not in str(caught.value) and "ret@" not in str(caught.value)


def test_a_database_of_a_node_on_postgresql_is_read_and_can_change_nothing(server: str) -> None:
    import psycopg

    frame = read(server, "sql", query="SELECT age::float8, ward FROM people WHERE ward <> ':x' ORDER BY 1")
    assert frame.to_dict("list") == {"age": [30.0, 41.0, 52.0], "ward": ["north", 'so"u,th', "north"]}
    for query in ("DELETE FROM people", "SELECT 1; DROP TABLE people", "COMMIT; DELETE FROM people", "SELECT * FROM x"):
        with pytest.raises(DataError, match="database 'a' of North: the query failed"):
            read(server, "sql", query=query, about="database 'a' of North")
    with psycopg.connect(server) as connection:
        assert connection.execute("SELECT count(*) FROM people").fetchone() == (3,)


def test_a_password_is_not_in_the_error_of_a_server_that_cannot_be_reached() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(DataError, match="no connection to the database") as caught:
        read("postgresql://me:secret@127.0.0.1:1/x", "sql", query="SELECT 1")
    assert "secret" not in str(caught.value)
