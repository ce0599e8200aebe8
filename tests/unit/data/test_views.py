"""Copies of databases without hidden columns: the frames are the same, and hidden values are nowhere in the file."""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest

from fedpkg.analytics.databases import count_rows, read
from fedpkg.analytics.node import Database
from fedpkg.analytics.policy import policy_of
from fedpkg.data.views import write_view
from fedpkg.errors import DataError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "analytics" / "parquet"))
import make as golden

PARQUET = Path(__file__).resolve().parents[1] / "analytics" / "parquet"
SECRET = "Geheimrat"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "die 'Daten' ü"
    path.mkdir()
    return path


def view_of(folder: Path, path: Path, kind: str, hidden: str = "secret", **options: Any) -> Path:
    policy = policy_of({"forbidden_columns": [hidden]})
    target = folder / f"view{path.suffix}"
    database = Database("default", str(path), kind, options)
    write_view(database, target, lambda column: policy.shows("default", column), about="database 'default' of North")
    return target


CSV = [
    f"secret,a,b\n{SECRET},1,2.50\n{SECRET},0.1,1e-300\n",
    f'a,secret,b\n"1, 2","{SECRET}, {SECRET}","x ""y"""\n\n   \n3,,\n4\n',
    f'a,secret\n1,{SECRET}\n"",{SECRET}\n" ",{SECRET}\n',
    f'a,"secret\n",b\r\n1,{SECRET},2\r\n',
    f"\ufeffsecret,größe\n{SECRET},1\n",
    f"a,SECRET ,a\n1,{SECRET},2\n",
    f"a,secret\nNA,{SECRET}\nNone,\n",
    "a,secret\n",
]


@pytest.mark.parametrize("text", CSV)
@pytest.mark.filterwarnings("ignore:.* has texts among numbers")
def test_a_view_of_a_csv_file_is_the_frame_without_hidden_columns(folder: Path, text: str) -> None:
    path = folder / "data.csv"
    path.write_bytes(text.encode())
    view = view_of(folder, path, "csv")
    whole = pd.read_csv(path)
    shown = [name for name in whole.columns if str(name).strip().lower() != "secret"]
    pd.testing.assert_frame_equal(read(str(view), "csv"), whole[shown], check_exact=True)
    assert SECRET not in view.read_text()


def test_a_view_keeps_the_options_of_its_file(folder: Path) -> None:
    path, options = folder / "data.csv", {"separator": ";", "encoding": "latin-1", "decimal": ","}
    path.write_bytes(f"größe;secret\n1,75;{SECRET}\n".encode("latin-1"))
    view = view_of(folder, path, "csv", **options)
    assert read(str(view), "csv", **options).to_dict("list") == {"größe": [1.75]}
    with pytest.raises(DataError, match="which is several with another separator"):
        view_of(folder, path, "csv", encoding="latin-1")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"a,secret\n1,2,{SECRET}\n", "line 2: 3 values for 2 columns"),
        ("secret\n1\n", "has no column that may be seen"),
        ("größe,secret\n", "no view without hidden columns can be made: UnicodeDecodeError"),
    ],
)
def test_a_file_whose_columns_are_not_certain_has_no_view(folder: Path, text: str, words: str) -> None:
    path = folder / "data.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=f"database 'default' of North: .*{words}"):
        view_of(folder, path, "csv")


def test_a_view_of_an_excel_file_has_all_sheets(folder: Path) -> None:
    path = folder / "book.xlsx"
    with pd.ExcelWriter(path) as book:
        pd.DataFrame({"secret": [SECRET], "a": [1.5]}).to_excel(book, sheet_name="first", index=False)
        pd.DataFrame({"b": [2], "Secret": [SECRET]}).to_excel(book, sheet_name="second", index=False)
    view = str(view_of(folder, path, "excel"))
    assert read(view, "excel").to_dict("list") == {"a": [1.5]}
    assert read(view, "excel", sheet_name="second").to_dict("list") == {"b": [2]}


def test_columns_without_a_name_are_hidden_as_their_names_may_be_in_another_row(folder: Path) -> None:
    path = folder / "data.xlsx"
    pd.DataFrame([["Patients", None, None], ["a", "secret", "b"], [1, SECRET, 2]]).to_excel(
        path, header=False, index=False
    )
    frame = read(str(view_of(folder, path, "excel")), "excel")
    assert list(frame.columns) == ["Patients"] and SECRET not in frame.to_string()


def test_a_view_of_an_sqlite_file_answers_queries_without_hidden_columns(folder: Path) -> None:
    path = folder / "data.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute('CREATE TABLE "p a" (id INTEGER PRIMARY KEY AUTOINCREMENT, secret TEXT, age REAL)')
        connection.executemany('INSERT INTO "p a" (secret, age) VALUES (?, ?)', [(SECRET, 1.5), (SECRET, None)])
        connection.execute('CREATE VIEW v AS SELECT age FROM "p a"')
    policy = policy_of({"allowed_columns": ["id", "age"]})
    target = folder / "view.sqlite"
    write_view(Database("a", str(path), "sql"), target, lambda name: policy.shows("a", name), about="database")
    frame = read(str(target), "sql", query='SELECT * FROM "p a" JOIN v USING (age) ORDER BY id')
    assert frame.to_dict("list") == {"id": [1], "age": [1.5]}
    assert SECRET.encode() not in target.read_bytes() and SECRET.encode() in path.read_bytes()
    with pytest.raises(DataError, match="no such column: secret"):
        read(str(target), "sql", query='SELECT secret AS age FROM "p a"')


def test_what_is_computed_from_a_hidden_column_is_not_in_the_view_of_an_sqlite_file(folder: Path) -> None:
    path = folder / "data.sqlite"
    with sqlite3.connect(path) as connection:
        connection.executescript(
            f"""
            CREATE TABLE p (id INTEGER PRIMARY KEY, secret TEXT, age REAL, twice AS (2 * age), word AS (lower(secret)));
            INSERT INTO p (secret, age) VALUES ('{SECRET}', 1.5), ('{SECRET}', 7);
            CREATE TABLE plain (age REAL, twice AS (2 * age) STORED);
            INSERT INTO plain (age) VALUES (3);
            CREATE VIEW renamed AS SELECT secret AS name, age FROM p;
            CREATE VIEW inner_one AS SELECT age, (SELECT max(secret) FROM p) AS name FROM plain;
            CREATE VIEW old AS SELECT * FROM p WHERE age > 5 AND '{SECRET}' > '';
            CREATE VIEW of_a_view (years) AS SELECT age FROM old;
            CREATE VIEW of_hidden AS SELECT name AS other FROM renamed;
            CREATE VIEW by_hidden AS SELECT age FROM p WHERE secret > '' ORDER BY secret;
            CREATE VIEW counted AS SELECT count(*) AS n, age FROM p GROUP BY age HAVING max(secret) > '';
            CREATE VIRTUAL TABLE words USING fts5(secret);
            INSERT INTO words VALUES ('{SECRET}');
            """
        )
    view = view_of(folder, path, "sql")
    with sqlite3.connect(view) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master ORDER BY name")]
        found = {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in tables}
    assert found == {"p": [(1, 1.5), (2, 7.0)], "plain": [(3.0, 6.0)], "old": [(2, 7.0)], "of_a_view": [(7.0,)]}
    assert SECRET.lower().encode() not in view.read_bytes().lower()


@pytest.mark.parametrize("name", ["columns", "index", "every second", "plain"])
def test_a_view_of_a_parquet_file_is_the_frame_without_hidden_columns(folder: Path, name: str) -> None:
    path, whole = PARQUET / f"{name}.parquet", read(str(PARQUET / f"{name}.parquet"), "parquet")
    hidden = str(whole.columns[0])
    view = view_of(
        folder, path, "parquet", hidden="float32" if name == "columns" else hidden if len(whole.columns) > 1 else "x"
    )
    found = read(str(view), "parquet")
    expected = whole.drop(columns="float32" if name == "columns" else hidden if len(whole.columns) > 1 else [])
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


def test_notes_about_a_frame_are_not_in_its_view(folder: Path) -> None:
    path = folder / "noted.parquet"
    told = {"columns": [], "index_columns": [], "attributes": {"patients": [SECRET]}, "pandas_version": "2.2"}
    with duckdb.connect() as connection:
        notes = json.dumps(told).replace("'", "''")
        place = str(path).replace("'", "''")
        options = f"FORMAT parquet, KV_METADATA {{pandas: '{notes}'}}"
        connection.execute(f"COPY (SELECT 1 AS a, '{SECRET}' AS secret) TO '{place}' ({options})")
    view = view_of(folder, path, "parquet")
    assert SECRET.encode() in path.read_bytes() and SECRET.encode() not in view.read_bytes()
    assert read(str(view), "parquet").to_dict("list") == {"a": [1]}


@pytest.mark.parametrize("kind", ["STRUCT(secret VARCHAR, age INTEGER)", "STRUCT(secret VARCHAR)[]"])
def test_a_column_with_fields_is_refused_where_columns_are_hidden(folder: Path, kind: str) -> None:
    path = folder / "fields.parquet"
    with duckdb.connect() as connection:
        place = str(path).replace("'", "''")
        connection.execute(f"COPY (SELECT 1 AS a, NULL::{kind} AS person) TO '{place}' (FORMAT parquet)")
    with pytest.raises(DataError, match="column 'person' has fields, among which there may be hidden ones"):
        view_of(folder, path, "parquet")
    assert read(str(view_of(folder, path, "parquet", hidden="person")), "parquet").to_dict("list") == {"a": [1]}


def test_an_index_that_is_hidden_is_gone(folder: Path) -> None:
    found = read(str(view_of(folder, PARQUET / "index.parquet", "parquet", hidden="text")), "parquet")
    assert found.index.names == [None] and "text" not in found.columns
    assert found["int64"].tolist() == golden.frame()["int64"].tolist()


@pytest.mark.parametrize(
    ("uri", "kind", "words"),
    [
        ("postgresql://h/x", "sql", "columns of a database on a server cannot be hidden"),
        (".", "folder", "of type folder has no columns that a policy could hide"),
        ("nowhere.csv", "csv", "there is no file"),
        (r"C:\data.csv", "csv", "is a Windows path"),
    ],
)
def test_what_has_no_columns_to_hide_is_an_error(folder: Path, uri: str, kind: str, words: str) -> None:
    with pytest.raises(DataError, match=f"database 'default' of North: .*{words}"):
        view_of(folder, Path(uri) if "://" not in uri else _Url(uri), kind)


class _Url:
    """A URI that `Path` would change."""

    suffix = ""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def __str__(self) -> str:
        return self.uri


def test_rows_are_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "data.csv"
    path.write_text("a;b\n1;2\n\n3;4\n")
    database = Database("default", str(path), "csv", {"separator": ";"})
    assert count_rows(database, about="it") == 2
    monkeypatch.setattr("fedpkg.analytics.databases._LARGE_BYTES", 0)
    assert count_rows(database, about="it") == 2
    assert count_rows(Database("default", str(PARQUET / "plain.parquet"), "parquet"), about="it") == 3
    assert count_rows(Database("default", str(folder), "folder"), about="it") is None
    with sqlite3.connect(folder / "x.sqlite") as connection:
        connection.execute("CREATE TABLE small AS SELECT 1 AS x")
        connection.execute('CREATE TABLE "large ""one""" AS SELECT 1 AS x UNION SELECT 2')
    for uri in (str(folder / "x.sqlite"), f"sqlite:///{folder / 'x.sqlite'}"):
        assert count_rows(Database("a", uri, "sql"), about="it") == 2
    query = {"query": "SELECT * FROM small"}
    assert count_rows(Database("a", str(folder / "x.sqlite"), "sql", query), about="it") == 1


def test_a_large_file_whose_rows_cannot_be_counted_is_an_error_of_the_data(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedpkg.analytics.databases._LARGE_BYTES", 0)
    path = folder / "data.csv"
    path.write_bytes("név,age\ná,1\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"it: .*data\.csv is not UTF-8 text"):
        count_rows(Database("default", str(path)), about="it")
    assert count_rows(Database("default", str(path), "csv", {"encoding": "latin-1"}), about="it") == 1
