"""Databases of a node as DataFrames: the same as production reads, and what is said where that would go wrong."""

from __future__ import annotations

import importlib.util
import sqlite3
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedpkg.analytics import databases
from fedpkg.analytics.databases import DatabaseWarning, read
from fedpkg.analytics.parquet import read_with_duckdb
from fedpkg.errors import DataError

sys.path.insert(0, str(Path(__file__).parent / "parquet"))
import make as golden

PARQUET = Path(__file__).parent / "parquet"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "die Daten ü"
    path.mkdir()
    return path


def write(folder: Path, content: str | bytes, name: str = "data.csv") -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def same(found: Any, expected: Any) -> None:
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


# ---------------------------------------------------------------- CSV


@pytest.fixture
def in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is large, and read three rows at a time."""
    monkeypatch.setattr(databases, "_LARGE_BYTES", 0)
    monkeypatch.setattr(databases, "_ROWS_AT_ONCE", 3)


NUMBERS = [
    "a,b\n1,2\n",
    "a,b\n" + "1,2.5\n" * 7,
    "a,b\n" + "1,2\n" * 4 + "1.5,\n" + "1,2\n" * 4,
    'a,"b,\nc"\n' + '1,"2"\n\n' * 8,
    "a\n" + "0.1\n0.30000000000000004\n1e-300\n123456789.123456789\n" * 3,
    "a,b\r\n" + "1,2\r\n" * 7,
    "a,a\n" + "1,2\n" * 7,
    "a,b\n" + ",\n" * 7,
    f"a\n{2**53 + 1}\n" + "1\n" * 5 + "1.5\n",
    f"a\n{2**60}\n" + "1\n" * 5,
    f"a\n{2**63}\n" + "1\n" * 5,
    "a,b\n" + "1,x\n" * 7,
    "a,b\n" + "1,2\n" * 5 + "1,x\n",
    "a,b\n" + "1,True\n" * 7,
    "a,b\n" + "9,1,2\n" * 7,
    "a,b\n" + "1\n" * 7,
    "a,b\n",
    "a",
]


@pytest.mark.usefixtures("in_pieces")
@pytest.mark.filterwarnings("ignore:.* has texts among numbers")
@pytest.mark.parametrize("text", NUMBERS)
def test_a_large_file_is_the_frame_of_pandas(folder: Path, text: str) -> None:
    path = write(folder, text)
    same(read(path, "csv"), pd.read_csv(path))


@pytest.mark.usefixtures("in_pieces")
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(-(2**54), 2**54) | st.just(""),
            st.floats(allow_nan=True, allow_infinity=False) | st.integers(-9, 9),
        ),
        max_size=12,
    )
)
def test_random_numbers_are_those_of_pandas(folder: Path, rows: list[tuple[Any, Any]]) -> None:
    path = write(folder, "a,b\n" + "".join(f"{a},{b}\n" for a, b in rows))
    same(read(path, "csv"), pd.read_csv(path))


def test_options_of_a_file_are_those_of_pandas(folder: Path) -> None:
    path = write(folder, "name;größe\nJörg;1,75\n".encode("latin-1"))
    found = read(path, "csv", separator=";", encoding="latin-1", decimal=",")
    assert found.to_dict("list") == {"name": ["Jörg"], "größe": [1.75]}


def test_a_byte_order_mark_is_no_part_of_the_first_name(folder: Path) -> None:
    assert list(read(write(folder, "\ufeffage,stage\n1,2\n"), "csv")) == ["age", "stage"]
    assert list(read(write(folder, '\ufeff"age",stage\n1,2\n'), "csv")) == ["age", "stage"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("age;stage\n1;2\n", r"has one column, 'age;stage': .* by ';', not by ','\s+try +set the option .*: \";\""),
        ("age\tstage\n1\t2\n", r"has one column, .* by .\\t., not by ','\s+try .*separator: .\\t"),
        ("age;size\n1;2\n2;2,5\n", r"has one column, 'age;size': .* by ';', not by ','\s+try .*: \";\""),
        ("größe\n1\n".encode("latin-1"), r"is not UTF-8 text\s+try .*encoding: latin-1"),
        ("a,b\n1,2\n".encode("utf-16"), r"is not UTF-8 text\s+try .*encoding: utf-16"),
        ("", r"is empty"),
        ("\n\n", r"is empty"),
        ('a,b\n1,"2\n', r"is not valid CSV"),
        ("a,b\n1,2\n1,2,secret,4\n", r"is not valid CSV: .*Expected 2 fields in line 3, saw 4"),
    ],
)
def test_a_file_that_would_be_misread_is_an_error_with_the_remedy(
    folder: Path, content: str | bytes, words: str
) -> None:
    with pytest.raises(DataError, match=f"database 'default' of North: .*data.csv {words}") as caught:
        read(write(folder, content), "csv", about="database 'default' of North")
    assert "secret" not in str(caught.value)


def test_mixed_types_and_decimal_commas_are_warnings_with_the_remedy(folder: Path) -> None:
    path = write(folder, 'age,size\n1,"1,5"\n2,"1,7"\n')
    with pytest.warns(DatabaseWarning, match=r"column 'size' has texts .* decimal comma; .* decimal: \",\""):
        assert read(path, "csv")["size"].tolist() == ["1,5", "1,7"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(path, "csv", decimal=",")["size"].tolist() == [1.5, 1.7]
    path = write(folder, "age,code\n1,A1\n2,2\nunknown,3\n")
    with pytest.warns(DatabaseWarning, match="column 'age' has texts among numbers") as warned:
        assert read(path, "csv")["age"].tolist() == ["1", "2", "unknown"]
    assert len(warned) == 1
    path = write(folder, "a,b\n" + "1,2\n" * 600_000 + "x,2\n")
    with pytest.warns(DatabaseWarning, match=r"database .*: column 0 has texts among numbers"):
        read(path, "csv")


# ---------------------------------------------------------------- paths and kinds


@pytest.mark.parametrize(
    ("uri", "kind", "words"),
    [
        (r"C:\Users\me\data.csv", "csv", "is a Windows path, and this machine is not Windows"),
        ("C:/data", "folder", "is a Windows path"),
        (r"\\server\share", "csv", "is a Windows path"),
        ("nowhere.csv", "csv", "there is no file nowhere.csv"),
        (".", "csv", "is a folder.*type: folder"),
        (__file__, "folder", "is not a folder"),
        ("/dev/null", "csv", "is not a regular file"),
        ("https://x/data.csv", "csv", "is not a path"),
        ("https://me:secret@x/data.csv", "csv", "https://me:…@x/data.csv is not a path"),
        ("x", "cvs", "unknown type 'cvs'; did you mean 'csv'"),
        ("x", "omop", "of type omop are not supported: they need R with the OHDSI packages"),
        ("x", "sparql", "need SPARQLWrapper"),
    ],
)
def test_what_cannot_be_read_is_said(uri: str, kind: str, words: str) -> None:
    with pytest.raises(DataError, match=f"(?s)database 'a' of North: .*{words}"):
        read(uri, kind, about="database 'a' of North")


def test_a_folder_is_its_path(folder: Path) -> None:
    assert read(str(folder), "folder") == str(folder)


def test_an_option_of_another_type_is_an_error(folder: Path) -> None:
    with pytest.raises(DataError, match="a database of type csv has no option 'query'"):
        read(write(folder, "a\n1\n"), "csv", query="SELECT 1")


def test_a_missing_library_names_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(
        DataError, match=r"pandas is not installed, which reads it\s+try +pip install 'fedpkg\[tabular\]"
    ):
        read(write(folder, "a\n1\n"), "csv")


# ---------------------------------------------------------------- Excel


def test_sheets_of_excel_files_are_read_by_name_or_number(folder: Path) -> None:
    path = str(folder / "book.xlsx")
    with pd.ExcelWriter(path) as book:
        pd.DataFrame({"a": [1]}).to_excel(book, sheet_name="first", index=False)
        pd.DataFrame({"b": [2.5]}).to_excel(book, sheet_name="second", index=False)
    same(read(path, "excel"), pd.DataFrame({"a": [1]}))
    same(read(path, "excel", sheet_name="second"), pd.DataFrame({"b": [2.5]}))
    same(read(path, "excel", sheet_name=1), pd.DataFrame({"b": [2.5]}))
    with pytest.raises(DataError, match=r"no sheet 'secnd'; did you mean 'second'\?\s+try +its sheets: first, second"):
        read(path, "excel", sheet_name="secnd")
    with pytest.raises(DataError, match="no sheet 2"):
        read(path, "excel", sheet_name=2)
    with pytest.raises(DataError, match="is not an Excel file"):
        read(write(folder, "PK\x03\x04 no", "other.xlsx"), "excel")


# ---------------------------------------------------------------- SQL


@pytest.fixture
def database(folder: Path) -> str:
    path = folder / "p#1.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE patients (id INTEGER, age INTEGER, name TEXT)")
    connection.executemany("INSERT INTO patients VALUES (?, ?, ?)", [(1, 50, "a"), (2, None, "b")])
    connection.commit()
    connection.close()
    return str(path)


def test_a_query_on_sqlite_is_read(database: str) -> None:
    expected = pd.DataFrame({"id": [1, 2], "age": [50, np.nan]})
    for uri in (database, f"sqlite:///{database}"):
        same(read(uri, "sql", query="SELECT id, age FROM patients"), expected)
    with pytest.raises(DataError, match="an SQL database needs a query"):
        read(database, "sql")


def test_a_query_changes_nothing_and_reaches_no_other_file(database: str, folder: Path) -> None:
    before = Path(database).read_bytes()
    other = folder / "other.sqlite"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE secret AS SELECT 1 AS x")
    for query in (
        "DELETE FROM patients",
        "DROP TABLE patients",
        f"ATTACH DATABASE '{other}' AS o",
        "SELECT 1; SELECT 2",
        "PRAGMA writable_schema = 1",
        "SELECT load_extension('x')",
        "SELECT * FROM nobody",
    ):
        with pytest.raises(DataError, match="the query failed"):
            read(database, "sql", query=query)
    assert Path(database).read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["other.sqlite", "p#1.sqlite"]


def test_servers_other_than_postgresql_are_not_supported() -> None:
    with pytest.raises(DataError, match="databases of mysql are not supported"):
        read("mysql://h/x", "sql", query="SELECT 1")


@pytest.mark.skipif(importlib.util.find_spec("psycopg") is not None, reason="psycopg is installed")
def test_postgresql_without_its_driver_says_what_to_install() -> None:
    with pytest.raises(DataError, match=r"psycopg is not installed.*\s+try +pip install 'psycopg\[binary\]'"):
        read("postgresql://h/x", "sql", query="SELECT 1")


# ---------------------------------------------------------------- Parquet


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("columns", golden.frame()),
        ("index", golden.frame().set_index(["text", "int64"])),
        ("every second", golden.frame()[["float64"]].iloc[::2]),
        ("plain", golden.plain()),
    ],
)
def test_a_parquet_file_is_the_frame_of_pandas_also_without_pyarrow(name: str, expected: Any) -> None:
    same(read_with_duckdb(str(PARQUET / f"{name}.parquet"), "database"), expected)
    same(read(str(PARQUET / f"{name}.parquet"), "parquet"), expected)


@pytest.mark.parametrize(
    ("name", "words"),
    [("category", "'text' has the type categorical, which only pyarrow reads"), ("case", "differ only by their case")],
)
def test_columns_that_only_pyarrow_reads_are_refused(name: str, words: str) -> None:
    with pytest.raises(DataError, match=f"(?s){words}.*pip install pyarrow"):
        read_with_duckdb(str(PARQUET / f"{name}.parquet"), "database")


def test_a_file_that_is_not_parquet_is_an_error_and_its_name_is_no_pattern(folder: Path) -> None:
    path = write(folder, "no", "[a]*.parquet")
    with pytest.raises(DataError, match="is not a Parquet file"):
        read(path, "parquet")
    Path(path).write_bytes((PARQUET / "plain.parquet").read_bytes())
    write(folder, "no", "a.parquet")
    same(read(path, "parquet"), golden.plain())
